__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

import re
import shlex

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
# log_fmt_shell does not quote the path.
log = snakemake.log_fmt_shell(stdout=False, stderr=True) and f"2> {shlex.quote(str(snakemake.log))}"

# A checkpoint directory, shared and read only; without one, the small model inside ankh3.
model = snakemake.input.get("model", "nano")

# Such as 2/8: every 8th protein from the 2nd on.
shard = snakemake.params.get("shard", "")
shard = f"--shard {shard}" if shard else ""


def gpus(resources):
    """The GPUs that the job asks for: `gpu`, or what `gres` and `slurm_extra` say in Slurm's words."""
    words = f"--gres={resources.get('gres', '')} {resources.get('slurm_extra', '')}"
    gres = ",".join(re.findall(r"--gres[= ]([^\s'\"]*)", words))
    found = re.findall(r"(?:^|,)gpu(?::[A-Za-z][^:,]*)?(?::(\d+))?(?=,|\(|$)", gres)
    found += re.findall(r"(?:--gpus(?:-per-\w+)?[= ]|(?<![\w-])-G[= ]?)(?:[A-Za-z][\w.-]*:)?(\d+)", words)
    return max([int(resources.get("gpu", 0) or 0)] + [int(count or 1) for count in found])


# A job that asks for GPUs uses all of them, and fails where there is none or where the command can use only one.
device = ["cpu", "cuda", "cuda:all"][min(gpus(snakemake.resources), 2)]

variants = snakemake.input.get("variants", "")
variants = f"--variants={shlex.quote(str(variants))}" if variants else ""

# Exit status 3: done, but for records left out as asked (--on-bad skip, --over skip); the log lists them.
shell(
    "ankh3 score --model={model:q} {shard} {variants} --device {device} --threads {snakemake.threads}"
    " --resume --output={snakemake.output.scores:q} {extra} -- {snakemake.input.fasta:q} {log} || [ $? -eq 3 ]"
)
