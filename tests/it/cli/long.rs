use ankh3::sequence::{Limit, Over};

use super::support::{difference, fasta, folder_with, project, proteins, records, run, tiny};

/// The embedding of 3 000 residues in chunks is that of each chunk, averaged where chunks overlap.
#[test]
fn chunks_are_joined_residue_by_residue() {
    let all = proteins(&[3000, 10]);
    let folder = folder_with(&all);
    let path = folder.path();
    let embed = |rest: &str| {
        run(path, &format!("embed --model {} {rest}", tiny())).with(0);
    };
    embed("--max-length 1000 --over chunk --overlap 100 -o chunked.npz in.fasta");
    let chunked = records(&path.join("chunked.npz"));
    assert_eq!(chunked.len(), 2);
    assert_eq!(chunked[0].values[0].len(), 3000 * 32);

    let limit = Limit::new(1000, Over::Chunk { overlap: 100 }).unwrap();
    let mut expected = vec![0.0_f32; 3000 * 32];
    let mut weights = vec![0.0_f32; 3000];
    for chunk in limit.chunks(3000) {
        let part = super::support::Protein {
            id: "part".to_owned(),
            residues: all[0].residues[chunk.range.clone()].to_owned(),
        };
        std::fs::write(path.join("part.fasta"), fasta(&[part])).unwrap();
        embed("-o part.npz part.fasta");
        let rows = &records(&path.join("part.npz"))[0].values[0];
        for (i, residue) in chunk.range.clone().enumerate() {
            weights[residue] += chunk.weight(i);
            for j in 0..32 {
                expected[residue * 32 + j] += chunk.weight(i) * rows[i * 32 + j];
            }
        }
    }
    assert!(
        weights.iter().all(|w| (w - 1.0).abs() < 1e-6),
        "weights are shares of one"
    );
    assert!(difference(&chunked[0].values[0], &expected) < 1e-6);
    // The short protein is not cut, nor is the long one without a limit.
    embed("-o whole.npz in.fasta");
    let whole = records(&path.join("whole.npz"));
    assert!(whole[1] == chunked[1]);
    assert!(whole[0] != chunked[0]);
}

#[test]
fn what_is_too_long_is_refused_left_out_or_cut_as_asked() {
    let all = proteins(&[30, 50, 20]);
    let folder = folder_with(&all);
    let path = folder.path();
    let embed = |over: &str| {
        let arguments = format!(
            "embed --model {} --max-length 30 {over} -o out.npz in.fasta",
            tiny()
        );
        run(path, &arguments)
    };
    let lengths = || -> Vec<usize> {
        let all = records(&path.join("out.npz"));
        all.iter().map(|record| record.length).collect()
    };
    embed("").with(1).saying(&[
        "in.fasta: record 2 (sp|P00001|RANDOM/1-50), line 3",
        "50",
        "30",
    ]);
    embed("--over skip")
        .with(3)
        .saying(&["skipped", "1 too long"]);
    assert_eq!(lengths(), [30, 20]);
    embed("--over truncate").with(0).saying(&["20"]);
    assert_eq!(lengths(), [30, 30, 20]);
    embed("--over chunk").with(0);
    assert_eq!(lengths(), [30, 50, 20]);
}

/// A protein of 35 213 residues, as long as titin.
#[test]
fn titin_is_embedded_in_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let input = project("tests/data/nasty/10_very_long_line.fasta");
    let arguments = format!(
        "embed --model {} --max-length 2000 --over chunk -o titin.npy {}",
        tiny(),
        input.display()
    );
    run(folder.path(), &arguments).with(0);
    let titin = &records(&folder.path().join("titin.npy"))[0];
    assert_eq!((titin.length, titin.values[0].len()), (35_213, 35_213 * 32));
}
