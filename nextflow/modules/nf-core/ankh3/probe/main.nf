process ANKH3_PROBE {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${task.accelerator ? "${moduleDir}/environment.gpu.yml" : "${moduleDir}/environment.yml"}"
    container "${task.accelerator ? 'ankh3:0.1.0-cuda' : 'ankh3:0.1.0'}"

    input:
    tuple val(meta), path(fasta)
    path model
    path head

    output:
    tuple val(meta), path("${prefix}.tsv"), emit: predictions
    tuple val(meta), path("${prefix}.tsv.json"), optional: true, emit: provenance
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def weights = model ? "--model ${model}" : '--model nano'
    def device = task.accelerator ? 'cuda' : 'cpu'
    // Exit status 3: done, but for records left out as asked (--on-bad skip, --over skip); the log lists them.
    """
    ankh3 probe predict \\
        ${weights} --head ${head} \\
        --device ${device} --threads ${task.cpus} \\
        --output ${prefix}.tsv \\
        ${args} \\
        ${fasta} || { status=\$?; [ \$status -eq 3 ] || exit \$status; }
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.tsv ${prefix}.tsv.json
    """
}
