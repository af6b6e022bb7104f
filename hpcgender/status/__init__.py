"""`hpcgender jobs`: the state of this user's runs, their logs, why they wait or failed, cancelling, resubmitting."""
