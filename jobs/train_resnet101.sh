#!/bin/bash
# Trains SE-ResNet-101 on data/shards into runs/resnet101; stopped by a time limit or a lost node, it goes on by itself.
# The same file for qsub, sbatch and bash, from the project's directory; options of `train` may follow the file's name.
# What to ask for differs from site to site: the PE and its slots, the GPUs, a queue or partition, the time limit.
# bash on a login node takes that from site.toml (see jobs/sites) and submits; on other machines it runs right there.
#$ -N train_resnet101
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#$ -r y -notify
#$ -pe mpi 2
#$ -l gpu=1
#SBATCH --job-name=train_resnet101
#SBATCH --output=logs/%x.o%j
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=1

# A scheduler runs a copy of this file that lies elsewhere.
cd "$(dirname "$0")/.." && [ -d hpcgender ] || cd "${SLURM_SUBMIT_DIR:-$SGE_O_WORKDIR}" || exit 2
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
nodes=() # those that the job was granted
[ -n "$SLURM_JOB_ID$SGE_TASK_ID" ] || nodes=(--nodes 2)

exec python -m hpcgender.launch "${nodes[@]}" -- train --model se_resnet101 --name resnet101 --resume "$@"
