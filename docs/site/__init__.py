"""The documentation site: hand-written pages in docs/, and pages that are made of the source."""
