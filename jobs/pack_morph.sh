#!/bin/bash
# Packs MORPH from data/MORPH into data/morph, all of it as test split. Started again after a kill, it resumes.
# Submit with qsub or sbatch, or run with bash, in the project's directory; options of `pack morph` may follow the file's name.
# Adapt to your site: the parallel environment and its slots, GPUs, queue or partition, time limit.
# bash submits on a login node, with the resources of site.toml (see jobs/sites); elsewhere it runs on this machine.
#$ -N pack_morph
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#$ -r y -notify
#$ -pe smp 4
#SBATCH --job-name=pack_morph
#SBATCH --output=logs/%x.o%j
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4

trap '' USR1 USR2 # requests to stop are for the launcher, and would end this shell
# A scheduler runs a copy of this file from another directory, where no profiles are.
cd "$(dirname "$0")" && [ -d sites ] && cd .. || cd "${SLURM_SUBMIT_DIR:-$SGE_O_WORKDIR}" || exit 2
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
command -v python >/dev/null || { echo "$0: no python here: bash jobs/install.sh in a clone, or load a module" >&2; exit 2; }

exec python -m hpcgender.launch --cpus 4 -- pack morph --images data/MORPH --out data/morph --val 0 --test 1 \
    --workers "${NSLOTS:-4}" "$@"
