#!/bin/bash
# Creates .venv, or reuses it, and installs the project there with the versions of constraints*.txt:
#   bash jobs/install.sh            to use it
#   bash jobs/install.sh test       to work on it: also pytest, ruff, mypy and the packages that the tests compare with
# PyTorch and NVIDIA DALI are those for the driver and the GPUs of this machine; where it has none, name them:
#   --cuda 13    driver 580 or newer, GPUs since Turing (compute capability 7.5)
#   --cuda 12    driver 525 or newer, GPUs since Volta (7.0); older ones need PyTorch's own index besides:
#                --extra-index-url https://download.pytorch.org/whl/cu126
#   --cpu        no GPU
# --index-url URL, --extra-index-url URL and --find-links PLACE are pip's. What is named holds for later calls, too.
# --dry-run only prints the command that installs.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }
usage() { sed -n '2,11s/^# \{0,1\}//p' jobs/install.sh; }
again="bash jobs/install.sh"
pytorch=https://download.pytorch.org/whl

extras='' cuda='' dry='' index=()
while [ $# -gt 0 ]; do
    case $1 in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    case $1 in
    test) extras=test ;;
    --cuda)
        case ${2:-} in 12 | 13) cuda=$2 ;; *) stop "--cuda ${2:-}: there is --cuda 12 and --cuda 13" ;; esac
        shift
        ;;
    --cpu) cuda=cpu ;;
    --dry-run) dry=yes ;;
    --index-url | --extra-index-url | --find-links)
        [ -n "${2:-}" ] || stop "$1 needs a URL or a directory"
        index+=("$1" "$2")
        shift
        ;;
    -h | --help) usage; exit ;;
    *) stop "no option $1: $again --help" ;;
    esac
    shift
done

# Sets `cuda` by what nvidia-smi says of the driver and of the oldest GPU.
look() {
    local gpus driver capability
    query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null; }
    # Drivers before 525 may not know compute_cap. Without GPUs or a driver both fail.
    if ! gpus=$(query driver_version,compute_cap) && ! gpus=$(query driver_version); then
        cuda=13
        say "no GPU here: PyTorch for CUDA 13, which computes on CPUs, too. If your GPU nodes have a driver before 580 or" \
            "GPUs before Turing: $again --cuda 12"
        return
    fi
    read -r driver capability <<<"$(sort -t, -k2V <<<"$gpus" | sed -n '1s/,//;1p')"
    [[ $driver =~ ^[0-9]+\. ]] || stop "nvidia-smi names no driver but says '$driver': give --cuda 12, --cuda 13 or --cpu"
    if [ "${driver%%.*}" -lt 525 ]; then
        stop "the NVIDIA driver $driver is too old for today's PyTorch, which needs 525: have it renewed, or give --cpu"
    fi
    [[ $capability =~ ^[0-9]+\.[0-9]$ ]] ||
        stop "nvidia-smi does not name this GPU's compute capability: give --cuda 12 (Volta), --cuda 13 or --cpu"
    if [ "${capability/./}" -lt 70 ] && [ ${#index[@]} = 0 ]; then
        stop "this GPU has compute capability $capability, older than Volta, and PyPI no PyTorch for it. PyTorch's own index" \
            "has: $again --extra-index-url $pytorch/cu126; or give --cpu"
    elif [ "${driver%%.*}" -lt 580 ] || [ "${capability/./}" -lt 75 ]; then
        cuda=12
    else
        cuda=13
    fi
    say "driver $driver, compute capability $capability: PyTorch and NVIDIA DALI for CUDA $cuda"
}

held=$(cat .venv/choice 2>/dev/null || echo 13)
if [ "$cuda" = cpu ]; then
    cuda=13
    [ ${#index[@]} -gt 0 ] || say "PyPI has PyTorch for CPUs only together with CUDA 13's; a smaller one is in PyTorch's own" \
        "index: $again --cpu --extra-index-url $pytorch/cpu"
elif [ -z "$cuda" ] && [ ${#index[@]} = 0 ] && [ -f .venv/choice ]; then
    read -r cuda index_words <<<"$held"
    read -ra index <<<"$index_words"
elif [ -z "$cuda" ]; then
    look
fi
choice="$cuda${index[*]:+ ${index[*]}}"

wanted=$(cat pyproject.toml constraints*.txt | sha256sum | cut -d' ' -f1)
if [ -z "$dry" ] && [ -f .venv/choice ] && [ "$choice" = "$held" ]; then
    for stamp in .venv/installed-"$extras"*; do # an installation with an extra has everything else, too
        if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
    done
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || stop "no $python: install Python 3.10 or newer, or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "$("$python" --version) is too old: install Python 3.10 or newer, or name one with PYTHON=..."
system=$(uname -sm) libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
if [ -n "$libc" ] && [ "$(printf '%s\n' "${libc#glibc }" 2.28 | sort -V | sed -n 1p)" != 2.28 ]; then
    stop "$libc is older than PyTorch needs, 2.28: use a container (docs/containers.md) or a newer system"
fi
if [ "$cuda" = 12 ] && [ "$system" != "Linux x86_64" ] && [ ${#index[@]} = 0 ]; then
    stop "PyPI has PyTorch for CUDA 12 only for x86-64, not for $system: $again --cuda 12 --extra-index-url $pytorch/cu128"
fi
all=$extras
case $system in
"Linux x86_64" | "Linux aarch64") all=cuda$cuda${extras:+,$extras} ;;
*) say "there is no NVIDIA DALI for $system: Pillow decodes the images instead" ;;
esac

install=(.venv/bin/pip install --quiet --disable-pip-version-check --constraint "constraints-cuda$cuda.txt")
install+=(${index[@]+"${index[@]}"} --editable ".${all:+[$all]}")
if [ -n "$dry" ]; then
    printf '%q ' "${install[@]}"
    echo
    exit
fi
if [ ! -x .venv/bin/pip ] || [ "$choice" != "$held" ]; then # packages for another CUDA would stay
    "$python" -m venv --clear .venv || stop "cannot create .venv: install Python's venv module (Debian: python3-venv)"
fi
echo "$choice" >.venv/choice
say "installing into $PWD/.venv: about 6 GB, mostly PyTorch with its CUDA libraries; some minutes"
"${install[@]}" || { say "the installation failed: fix what pip reports above and start again"; exit 1; }
echo "$wanted" >.venv/installed-"$extras"
say "installed"
