"""Site profiles: what ships can be used, and what a person gets wrong is told in one line."""

import json
import subprocess
from pathlib import Path

import pytest

from jobs.schedulers import SCHEDULERS, find_scheduler
from jobs.site import Site
from jobs.sites import find_site, parse_site, read_site, site_names, stored_site
from shard_tools.base.documents import parse_toml
from shard_tools.base.errors import UserError
from tests.programs import put


def test_all_shipped_profiles_can_be_read() -> None:
    assert site_names() == ["abci", "local", "notre-dame-crc", "sge", "slurm"]
    assert {read_site(name).scheduler for name in site_names()} == set(SCHEDULERS)


def test_a_file_may_have_any_setting(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('scheduler = "slurm"\nqueue = "gpu"\nmodules = ["cuda/13.0"]\nmemory_gb = 64\n')
    site = read_site(str(tmp_path / "lab.toml"))
    assert (site.name, site.queue, site.modules, site.memory_gb) == ("lab", "gpu", ("cuda/13.0",), 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('queue = "gpu"', "lab: scheduler is missing: it must be 'slurm' or 'sge' or 'local'"),
        ('scheduler = "pbs"', "lab, line 1: scheduler must be 'slurm' or 'sge' or 'local', not 'pbs'"),
        ('scheduler = "sge"\nque = "gpu"', "lab, line 2: que is unknown: did you mean queue?"),
        ('scheduler = "slurm"\npartition = "gpu"', "lab, line 2: partition is unknown: did you mean queue?"),
        ('scheduler = "sge"\nqueue = 3', "lab, line 2: queue must be text in quotes, not 3"),
        (
            'scheduler = "sge"\nmodules = "cuda"',
            "lab, line 2: modules must be a list in [ ], each text in quotes, not 'cuda'",
        ),
        ('scheduler = "sge"\ngpu_per = "node"', "lab, line 2: gpu_per must be 'host' or 'slot', not 'node'"),
        (
            'scheduler = "sge"\n[resource_types.rt_F]\ngpu = 4',
            "lab, line 3: resource_types.rt_F.gpu is unknown: did you mean gpus?",
        ),
        ("scheduler = ", "lab: "),
    ],
)
def test_a_wrong_profile_is_one_line_for_a_person(text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^lab[:,] ") as caught:
        parse_site("lab", parse_toml(text, "lab"))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_smallest_resource_type_that_fits_is_taken() -> None:
    abci = read_site("abci")
    assert abci.resource_type(1, 1, 0) == "rt_G.small"
    assert abci.resource_type(1, 4, 0) == "rt_G.large"
    assert abci.resource_type(2, 1, 0) == "rt_F"
    assert abci.resource_type(1, 0, 4) == "rt_C.small"
    with pytest.raises(UserError, match="no resource type for 1 node with 8 GPUs"):
        abci.resource_type(1, 8, 0)


def test_a_site_is_found_by_name_then_environment_then_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_site("", "slurm", {}).name == "slurm"
    (tmp_path / "site.toml").write_text('scheduler = "sge"\nqueue = "here"\n')
    assert find_site("", "auto", {}).queue == "here"
    assert find_site("", "auto", {"HPCGENDER_SITE": "abci"}).name == "abci"
    assert find_site("notre-dame-crc", "auto", {"HPCGENDER_SITE": "abci"}).name == "notre-dame-crc"
    assert find_site("", "local", {}).scheduler == "local"  # by hand on a machine of that site
    with pytest.raises(UserError, match="site abci has sge, not --scheduler slurm"):
        find_site("abci", "slurm", {})


def test_commands_without_a_cluster_are_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qsub", "qconf"):  # as of a package that is installed, and PBS has a qsub, too
        put(tmp_path, name, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_scheduler({}).name == "local"
    assert find_scheduler({"SGE_ROOT": "/opt/sge"}).name == "sge"


def test_a_site_sets_up_the_job(tmp_path: Path) -> None:
    text = 'scheduler = "slurm"\nmodules = ["a b", "c"]\nconda = "lab"\n'
    site = parse_site("x", parse_toml(text, "x"))
    assert [line.partition(" || stop ")[0] for line in site.setup()[1:]] == [
        "command -v module >/dev/null",
        "module load 'a b'",
        "module load c",
        "command -v conda >/dev/null",
        'eval "$(conda shell.bash hook)" && conda activate lab',
    ]
    assert site.launcher_python == "python"


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("", "launch: site x: modules: there is no command module on "),
        ("module() { return 1; }", "launch: site x: modules: c cannot be loaded on "),
        ("module() { return 0; }", "launch: site x: conda: there is no command conda on "),
        ("module() { return 0; }; conda() { return 1; }", "launch: site x: conda: it's cannot be activated on "),
        ("module() { return 0; }; conda() { echo true; }", "launch: site x: venv: nowhere cannot be activated on "),
    ],
)
def test_a_job_ends_where_its_site_cannot_be_set_up(there: str, says: str, tmp_path: Path) -> None:
    site = Site(name="x", scheduler="slurm", modules=("c",), conda="it's", venv="nowhere")
    script = "\n".join([there, *site.setup(), "echo it goes on"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "it goes on" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith(says)


def test_paths_of_a_site_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = 'scheduler = "slurm"\nvenv = "~/env"\nscratch = "~/tmp/$USER"\ncontainer = "apptainer exec ~/hpc.sif"\n'
    (tmp_path / "lab.toml").write_text(text)
    site = read_site("~/lab.toml")
    activate = f"{tmp_path}/env/bin/activate"
    assert site.setup()[1].startswith(f"[ -f {activate} ] && . {activate} || ")
    assert site.scratch == f"{tmp_path}/tmp/$USER"
    assert site.agent_python == ("apptainer", "exec", f"{tmp_path}/hpc.sif", "python3")


@pytest.mark.parametrize("name", site_names())
def test_a_profile_is_read_from_a_record_as_it_was(name: str) -> None:
    site = read_site(name)
    assert stored_site({**json.loads(json.dumps(site.plain())), "added_later": 1}, Path("submission.json")) == site
