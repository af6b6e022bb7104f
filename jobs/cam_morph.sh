#!/bin/bash
# Draws heat maps of the best checkpoint of runs/se_resnet152 on the test split of data/morph.
# Submit with qsub or sbatch, or run with bash, in the project's directory; options of `cam` may follow the file's name.
# Adapt to your site: the parallel environment and its slots, GPUs, queue or partition, time limit.
# bash submits on a login node, with the resources of site.toml (see jobs/sites); elsewhere it runs on this machine.
#$ -N cam_morph
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#$ -r y -notify
#$ -pe mpi 2
#$ -l gpu=1
#SBATCH --job-name=cam_morph
#SBATCH --output=logs/%x.o%j
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=1

trap '' USR1 USR2 # requests to stop are for the launcher, and would end this shell
# A scheduler runs a copy of this file from another directory, where no profiles are.
cd "$(dirname "$0")" && [ -d sites ] && cd .. || cd "${SLURM_SUBMIT_DIR:-$SGE_O_WORKDIR}" || exit 2
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
command -v python >/dev/null || { echo "$0: no python here: bash jobs/install.sh in a clone, or load a module" >&2; exit 2; }
request=() # a job has its resources already
[ -n "$SLURM_JOB_ID$SGE_TASK_ID" ] || request=(--nodes 2)

exec python -m hpcgender.launch "${request[@]}" -- cam \
    --checkpoint runs/se_resnet152/checkpoints/best.pt --data data/morph --split test "$@"
