__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

import shlex

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
# log_fmt_shell does not quote the path.
log = snakemake.log_fmt_shell(stdout=False, stderr=True) and f"2> {shlex.quote(str(snakemake.log))}"

shell("ankh3 merge --output={snakemake.output.merged:q} {extra} -- {snakemake.input.parts:q} {log}")
