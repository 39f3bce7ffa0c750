#!/usr/bin/env nextflow

//
// A protein family: pre-training goes on with it, then the model completes members from their beginnings and scores them; a page shows all
//

include { ANKH3_PRETRAIN } from '../../nextflow/modules/nf-core/ankh3/pretrain/main'
include { ANKH3_COMPLETE } from '../../nextflow/modules/nf-core/ankh3/complete/main'
include { ANKH3_SCORE    } from '../../nextflow/modules/nf-core/ankh3/score/main'
include { ANKH3_REPORT   } from '../../nextflow/modules/nf-core/ankh3/report/main'

workflow {
    main:
    def train = file(params.input, checkIfExists: true)
    def held_out = file(params.held_out, checkIfExists: true)
    def recipe = file(params.recipe, checkIfExists: true)
    // What lies in no folder is named on the command line (`ext.args`).
    def init = params.model in ['nano', 'ankh3-nano', 'none'] ? [] : file(params.model, checkIfExists: true, type: 'dir')
    def meta = [id: params.name]

    ANKH3_PRETRAIN(channel.of([meta, recipe, train, held_out]), init)
    ch_model = ANKH3_PRETRAIN.out.model.map { _meta, model -> model }.first()
    ANKH3_COMPLETE(channel.of([meta, held_out, '']), ch_model)
    ANKH3_SCORE(channel.of([meta, held_out, '']), ch_model, [])

    ch_results = channel.empty().mix(
        ANKH3_PRETRAIN.out.log,
        ANKH3_PRETRAIN.out.recipe,
        ANKH3_COMPLETE.out.fasta,
        ANKH3_COMPLETE.out.provenance,
        ANKH3_SCORE.out.scores,
        ANKH3_SCORE.out.provenance,
    )
    ch_pages = ch_results
        .groupTuple()
        .map { its_meta, files -> [its_meta, files.flatten().sort { result -> result.name }] }
    ANKH3_REPORT(ch_pages)
}
