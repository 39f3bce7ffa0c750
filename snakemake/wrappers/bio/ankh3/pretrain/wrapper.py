__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

import json
import re
import shlex

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
# log_fmt_shell does not quote the path.
log = snakemake.log_fmt_shell(stdout=False, stderr=True) and f"2> {shlex.quote(str(snakemake.log))}"


def gpus(resources):
    """The GPUs that the job asks for: `gpu`, or what `gres` and `slurm_extra` say in Slurm's words."""
    words = f"--gres={resources.get('gres', '')} {resources.get('slurm_extra', '')}"
    gres = ",".join(re.findall(r"--gres[= ]([^\s'\"]*)", words))
    found = re.findall(r"(?:^|,)gpu(?::[A-Za-z][^:,]*)?(?::(\d+))?(?=,|\(|$)", gres)
    found += re.findall(r"(?:--gpus(?:-per-\w+)?[= ]|(?<![\w-])-G[= ]?)(?:[A-Za-z][\w.-]*:)?(\d+)", words)
    return max([int(resources.get("gpu", 0) or 0)] + [int(count or 1) for count in found])


# A job that asks for GPUs uses all of them, and fails where there is none or where the command can use only one.
device = ["cpu", "cuda", "cuda:all"][min(gpus(snakemake.resources), 2)]


def names(files):
    files = [files] if isinstance(files, str) else files
    return json.dumps([str(file) for file in files], ensure_ascii=False)


train = "data.train=" + names(snakemake.input.train)
valid = "data.valid=" + names(snakemake.input.get("valid", []))
init = snakemake.input.get("init", "")
init = f"--init={shlex.quote(str(init))}" if init else ""

# Snakemake takes the output of a failed job away; the run lies beside it until it is whole, so that a retry resumes.
run = f"{snakemake.output.model}.unfinished"
shell(
    "ankh3 pretrain --set {train:q} --set {valid:q} {init}"
    " --device {device} --threads {snakemake.threads} --resume --output={run:q} {extra} -- {snakemake.input.recipe:q} {log}"
)
shell(
    "mv -- {run:q}/log.jsonl {snakemake.output.log:q} && mv -- {run:q}/recipe.toml {snakemake.output.recipe:q} &&"
    " mv -- {run:q}/model {snakemake.output.model:q} && rm -r -- {run:q}"
)
