//
// A quick task that ends, and a slow one that is killed and tried again
//

include { ANKH3_SCORE } from '../../nextflow/modules/nf-core/ankh3/score/main'

workflow {
    main:
    def slow = file(params.input, checkIfExists: true)
    def quick = file("${projectDir}/../../examples/family-held-out.fasta", checkIfExists: true)
    def model = file(params.model, checkIfExists: true, type: 'dir')
    ANKH3_SCORE(channel.of([[id: 'quick'], quick, '1/3'], [[id: 'slow'], slow, '']), model, [])
}
