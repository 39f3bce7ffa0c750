__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

# A job that asked for a GPU uses it, and fails where there is none.
device = "cuda" if snakemake.resources.get("gpu", 0) else "cpu"


def names(files):
    files = [files] if isinstance(files, str) else files
    return "[" + ", ".join(f'"{file}"' for file in files) + "]"


train = "data.train=" + names(snakemake.input.train)
valid = "data.valid=" + names(snakemake.input.get("valid", []))
init = snakemake.input.get("init", "")
init = f"--init '{init}'" if init else ""

# Snakemake takes the output of a failed job away; the run lies beside it until it is whole, so that a retry resumes.
run = f"{snakemake.output.model}.unfinished"
shell(
    "ankh3 pretrain {snakemake.input.recipe:q} --set {train:q} --set {valid:q} {init}"
    " --device {device} --threads {snakemake.threads} --resume --output {run:q} {extra} {log}"
)
shell(
    "mv {run:q}/log.jsonl {snakemake.output.log:q} && mv {run:q}/recipe.toml {snakemake.output.recipe:q} &&"
    " mv {run:q}/model {snakemake.output.model:q} && rm -r {run:q}"
)
