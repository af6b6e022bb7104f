#!/bin/bash
# Installs the Debian packages that tests/cluster needs, if it runs as root on a Debian or Ubuntu machine that belongs to
# no cluster yet; elsewhere it installs nothing and says so, which CI=true makes a failure. It starts no service.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

skip() {
    printf '\n%s\n' "****** NOT TESTED HERE: jobs on real Slurm and Grid Engine daemons (tests/cluster): $*" \
        "****** They are tested as root on a Debian or Ubuntu machine or container that belongs to no cluster." '' >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

[ "$(id -u)" = 0 ] || skip "only root can make test hosts"
missing=
for program in munged mariadbd slurmdbd slurmctld slurmd sbatch sge_qmaster sge_execd qsub setpriv ip ch-run; do
    command -v $program >/dev/null || missing+=" $program"
done
if [ -n "$missing" ]; then
    missing="there is no${missing}, and"
    command -v apt-get >/dev/null || skip "$missing no apt-get to install it"
    for sign in ${SLURM_CONF:+SLURM_CONF} ${SGE_ROOT:+SGE_ROOT} \
        /etc/slurm*/slurm.conf /usr/local/etc/slurm.conf /var/lib/gridengine/*/common/act_qmaster; do
        case $sign in /*) [ -e "$sign" ] || continue ;; esac
        skip "$missing this machine belongs to a cluster ($sign), so nothing is installed"
    done
    for command in squeue qstat bjobs; do
        place=$(type -P $command) || continue
        dpkg -S "$place" 2>/dev/null | grep -qE '^(slurm-client|gridengine-client):' ||
            skip "$missing this machine belongs to a cluster ($place), so nothing is installed"
    done
    daemon=$(cat /proc/[0-9]*/comm 2>/dev/null | grep -xEm1 'slurmd|slurmctld|slurmdbd|sge_execd|sge_qmaster|pbs_mom') &&
        skip "$missing this machine belongs to a cluster ($daemon runs here), so nothing is installed"

    echo "installing Slurm and Grid Engine for tests/cluster" >&2
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e /usr/sbin/policy-rc.d ]; then # or the packages would start what they can
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    for package in common client exec master; do # no cell of Debian's: the tests make their own
        echo "gridengine-$package shared/gridengineconfig boolean false"
    done | debconf-set-selections
    options=(-qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
    apt-get update "${options[@]}" && apt-get install -y --no-install-recommends "${options[@]}" >&2 \
        munge slurmctld slurmd slurm-client slurmdbd mariadb-server-core iproute2 util-linux \
        gridengine-master gridengine-exec gridengine-client ||
        skip "$missing apt-get could not install it"
    apt-get install -y --no-install-recommends "${options[@]}" charliecloud-runtime >&2 ||
        echo "cannot install charliecloud-runtime: jobs in a container are not tested" >&2
fi
unshare --mount --uts --ipc --net --pid --fork true 2>/dev/null || skip "this machine makes no namespaces"
