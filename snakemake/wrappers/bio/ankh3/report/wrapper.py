__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

shell("ankh3 report --output {snakemake.output.html:q} {extra} -- {snakemake.input.results:q} {log}")
