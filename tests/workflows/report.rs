use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use crate::support::{ankh3, command, folder, has, model_folder, project, ran};

/// Contacts with scores instead of probabilities.
const SCORED: &str = "PFRMAT RR\nTARGET P86711\nREMARK values are scores divided by the highest of the protein\nMODEL 1\n1 25 1\n2 9 0.5\nEND\n";

/// Measures as `probe evaluate` writes them.
const MEASURES: &str = "set\tmeasure\tvalue\tlow\thigh\tproteins\tcounted\nts115\taccuracy\t0.8125\t0.75\t0.875\t115\t20000\n";

/// Results of every kind; the contacts are those of an antiparallel pair of strands.
fn results(folder: &Path) {
    let proteins = project("examples/proteome.fasta");
    let run = |arguments: &str| {
        let mut command = ankh3(folder);
        command
            .args(arguments.split_whitespace())
            .arg("--model")
            .arg(model_folder())
            .arg(&proteins);
        ran(&mut command);
    };
    run("embed --pooling mean -o results/embeddings.npz");
    run("complete -o results/completions.fasta");
    run("score --mask-fraction 0.5 -o results/scores.tsv");
    run("score --mask-fraction 0.5 --format csv -o results/scores.csv");
    fs::write(folder.join("results/measures.tsv"), MEASURES).unwrap();
    let pairs: Vec<String> = (10..50)
        .map(|i| format!("{i} {} 0.{}\n", 120 - i, 50 + i % 50))
        .collect();
    let pairs = pairs.concat();
    fs::write(
        folder.join("results/contacts.rr"),
        format!("PFRMAT RR\nTARGET P69905\nMODEL 1\n{pairs}END\n{SCORED}"),
    )
    .unwrap();
}

/// The number of pixels of each colour.
fn count(picture: &Path, colours: &[[u8; 3]]) -> Vec<usize> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(picture).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let width = info.color_type.samples();
    let of = |colour: &[u8; 3]| {
        pixels
            .chunks(width)
            .filter(|pixel| pixel[..3] == *colour)
            .count()
    };
    colours.iter().map(of).collect()
}

#[test]
fn a_browser_shows_tables_histograms_and_contact_maps() {
    if !has("chromium") {
        return;
    }
    let folder = folder();
    fs::create_dir(folder.path().join("results")).unwrap();
    results(folder.path());
    ran(ankh3(folder.path()).args([
        "report",
        "--title",
        "Trial <b>",
        "-o",
        "report.html",
        "results",
    ]));
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    let alone = !page.contains("<script")
        && !page.contains("src=")
        && !page.contains("<link")
        && !page.contains("@import");
    assert!(alone, "the page needs something else");
    ran(ankh3(folder.path()).args([
        "report",
        "--title",
        "Trial <b>",
        "-o",
        "again.html",
        "results",
    ]));
    assert_eq!(
        page,
        fs::read_to_string(folder.path().join("again.html")).unwrap()
    );

    let address = format!("file://{}", folder.path().join("report.html").display());
    let browse = |what: &str| {
        let mut chromium = command("chromium", folder.path());
        chromium.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1150,3000",
            what,
            &address,
        ]);
        ran(&mut chromium)
    };
    let seen = browse("--dump-dom");
    for part in [
        "Trial &lt;b&gt;",
        "Embeddings",
        "Completions",
        "Scores",
        "Contacts",
        "long-range",
        "not probabilities",
        "2 pairs, 1 of them long-range",
        "random, untrained",
        "scores.csv",
        "Evaluation",
        "0.75 – 0.875",
        "Model: ",
        "href=\"#section-1\"",
        "id=\"section-1\"",
        "probability of a contact",
    ] {
        assert!(seen.contains(part), "no {part:?}");
    }
    browse("--screenshot=page.png");
    // Blue of the bars, and the two darkest colours of contacts.
    let found = count(
        &folder.path().join("page.png"),
        &[[0x21, 0x66, 0xac], [0x21, 0x71, 0xb5], [0x08, 0x30, 0x6b]],
    );
    assert!(
        found[0] > 20_000 && found[1] > 50 && found[2] > 50,
        "{found:?}"
    );
}

#[test]
fn a_file_that_is_no_result_is_named() {
    let folder = folder();
    fs::write(folder.path().join("notes.txt"), "hello\n").unwrap();
    let (code, said) = crate::support::ended(ankh3(folder.path()).args(["report", "notes.txt"]));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("notes.txt: not a result that a report can show"),
        "{said}"
    );
}
