#!/bin/bash
# Packs MS1MV2 from data/faces_emore into data/ms1mv2, with the tasks of an array job and then a job that joins them:
#   qsub -t 1-16 jobs/pack_ms1mv2.sh        qsub -hold_jid pack_ms1mv2 -N join_ms1mv2 jobs/pack_ms1mv2.sh finalize
#   sbatch --array=1-16 jobs/pack_ms1mv2.sh         sbatch --dependency=singleton jobs/pack_ms1mv2.sh finalize
# or all of it in one job: qsub, sbatch or bash jobs/pack_ms1mv2.sh. Started again after a kill, each resumes.
# Options of `pack ms1mv2` may follow the file's name: your list of genders, and what its values mean. --aligned notes that
# the images are crops to ArcFace's template, so that photos are cropped likewise when a network predicts them.
# Adapt to your site: the parallel environment and its slots, GPUs, queue or partition, time limit.
# bash submits on a login node, with the resources of site.toml (see jobs/sites); elsewhere it runs on this machine.
#$ -N pack_ms1mv2
#$ -S /bin/bash
#$ -cwd
#$ -o logs/ -j y
#$ -r y -notify
#$ -pe smp 4
#SBATCH --job-name=pack_ms1mv2
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

out=data/ms1mv2
launch=(python -m hpcgender.launch --cpus 4 --)
workers=(--workers "${NSLOTS:-4}")

if [ "$1" = finalize ]; then
    exec "${launch[@]}" finalize $out "${workers[@]}"
fi
task=()
if [ -n "$SLURM_ARRAY_TASK_ID" ]; then
    task=(--task "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX")
elif [ "${SGE_TASK_ID:-undefined}" != undefined ]; then
    task=(--task "$SGE_TASK_ID/$SGE_TASK_LAST")
fi
exec "${launch[@]}" pack ms1mv2 --rec data/faces_emore/train.rec --labels data/faces_emore/genders.txt --by key \
    --male 1 --female 0 --unknown-value=-1 --vote identity --aligned --out $out "${workers[@]}" "${task[@]}" "$@"
