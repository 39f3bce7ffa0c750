__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

# A checkpoint directory, shared and read only; without one, the small model inside ankh3.
model = snakemake.input.get("model", "nano")

# A job that asked for a GPU uses it, and fails where there is none.
device = "cuda" if snakemake.resources.get("gpu", 0) else "cpu"

# Exit status 3: done, but for records left out as asked (--on-bad skip, --over skip); the log lists them.
shell(
    "ankh3 probe predict --model {model:q} --head {snakemake.input.head:q} --device {device} --threads {snakemake.threads}"
    " --output {snakemake.output.predictions:q} {extra} {snakemake.input.fasta:q} {log} || [ $? -eq 3 ]"
)
