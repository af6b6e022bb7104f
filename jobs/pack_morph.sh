#!/bin/bash
# Packs MORPH from data/MORPH into data/morph, all of it for testing; killed, it goes on where it was.
# The same file for qsub, sbatch and bash, from the project's directory; options of `pack morph` may follow its name.
# What to ask for differs from site to site: the PE and its slots, the GPUs, a queue or partition, the time limit.
# bash on a login node takes that from site.toml (see jobs/sites) and submits; on other machines it runs right there.
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

# A scheduler runs a copy of this file that lies elsewhere.
cd "$(dirname "$0")/.." && [ -d hpcgender ] || cd "${SLURM_SUBMIT_DIR:-$SGE_O_WORKDIR}" || exit 2
[ ! -f .venv/bin/activate ] || . .venv/bin/activate

exec python -m hpcgender.launch --cpus 4 -- pack morph --images data/MORPH --out data/morph --val 0 --test 1 \
    --workers "${NSLOTS:-4}" "$@"
