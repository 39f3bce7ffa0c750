process ANKH3_PRETRAIN {
    tag "$meta.id"
    label 'process_high'
    label 'process_gpu'

    conda "${task.accelerator ? "${moduleDir}/environment.gpu.yml" : "${moduleDir}/environment.yml"}"
    container "${task.accelerator ? 'ankh3:0.1.0-cuda' : 'ankh3:0.1.0'}"

    input:
    tuple val(meta), path(recipe), path(train, stageAs: 'train/*'), path(valid, stageAs: 'valid/*')
    path init

    output:
    tuple val(meta), path("${prefix}/model"), emit: model
    tuple val(meta), path("${prefix}/log.jsonl"), emit: log
    tuple val(meta), path("${prefix}/recipe.toml"), emit: recipe
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def weights = init ? "--init ${init}" : ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    def learnt = [train].flatten().collect { file -> "\"${file}\"" }.join(', ')
    def held_out = [valid].flatten().collect { file -> "\"${file}\"" }.join(', ')
    // Killed for time or memory and tried again, a task goes on where it was: what it had finished lies in its former folder.
    def former = task.attempt > 1 ? task.previousTrace?.workdir : null
    def fetched = former ? "cp -r ${former}/${prefix} . 2>/dev/null || true" : '# first attempt'
    """
    ${fetched}
    ankh3 pretrain ${recipe} \\
        --set 'data.train=[${learnt}]' --set 'data.valid=[${held_out}]' \\
        ${weights} \\
        --device ${device} --threads ${task.cpus} \\
        --resume --output ${prefix} \\
        ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}/model
    touch ${prefix}/model/config.json ${prefix}/log.jsonl ${prefix}/recipe.toml
    """
}
