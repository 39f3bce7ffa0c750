rule report:
    input:
        results=[OUT + "/{sample}." + FORMAT]
        + ([OUT + "/{sample}.rr"] if config["contacts"] else []),
    output:
        html=OUT + "/{sample}.html",
    log:
        OUT + "/logs/report/{sample}.log",
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=30,
    params:
        extra=lambda wildcards: f"--title 'Proteome {wildcards.sample}'",
    wrapper:
        "bio/ankh3/report"
