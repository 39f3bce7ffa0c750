process ANKH3_REPORT {
    tag "$meta.id"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ankh3:0.1.0"

    input:
    tuple val(meta), path(results, stageAs: 'results/*')

    output:
    tuple val(meta), path("${prefix}.html"), emit: html
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    ankh3 report \\
        --output ${prefix}.html \\
        ${args} \\
        results
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.html
    """
}
