use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A field that has a length.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [
        &varint(number << 3 | 2),
        &varint(content.len() as u64),
        content,
    ]
    .concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn tensor(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| {
        let text = [field(1, key.as_bytes()), field(2, value.as_bytes())];
        field(EXTERNAL_DATA, &text.concat())
    };
    let mut tensor: Vec<u8> = entries.iter().flat_map(entry).collect();
    // Data and dimensions, which are passed over.
    tensor.extend(field(9, &[0xff; 9000]));
    tensor.extend([varint(1 << 3), varint(u64::MAX)].concat());
    tensor.extend(field(NAME, b"w"));
    tensor
}

fn model(graph: &[u8]) -> Vec<u8> {
    // ir_version, and a field of each other kind.
    let ahead = [varint(1 << 3), varint(10), varint(100 << 3 | 5), vec![1; 4]];
    let more = [varint(101 << 3 | 1), vec![1; 8], field(7, graph)];
    [ahead.concat(), more.concat()].concat()
}

/// A folder with `models/m/1`, where what is checked is, and a file beside `models`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("models/m/1")).unwrap();
        fs::write(folder.path().join("secret"), [0; 64]).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("models/m/1").join(name)
    }

    fn check(&self, model: &[u8], most: u64) -> Result<(), String> {
        fs::write(self.file("model.onnx"), model).unwrap();
        check(&self.file("model.onnx"), most)
    }

    fn refused(&self, model: &[u8]) -> String {
        self.check(model, u64::MAX).unwrap_err()
    }
}

#[test]
fn sample_models_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut checked = 0;
    for entry in fs::read_dir(root).unwrap() {
        let file = entry.unwrap().path().join("1/model.onnx");
        if file.exists() {
            check(&file, u64::MAX).unwrap();
            checked += 1;
        }
    }
    assert!(checked > 5);
}

#[test]
fn data_is_in_files_of_the_versions_folder() {
    let place = Place::new();
    fs::create_dir(place.file("parts")).unwrap();
    fs::write(place.file("parts/w.bin"), [0; 64]).unwrap();
    symlink("parts/w.bin", place.file("link")).unwrap();
    for location in ["parts/w.bin", "./parts/w.bin", "link"] {
        let graph = field(
            5,
            &tensor(&[("location", location), ("offset", "32"), ("length", "32")]),
        );
        assert_eq!(place.check(&model(&graph), u64::MAX), Ok(()));
    }
}

#[test]
fn no_data_is_elsewhere() {
    let place = Place::new();
    symlink("../../../secret", place.file("link")).unwrap();
    symlink("../../..", place.file("up")).unwrap();
    fs::create_dir_all(place.file("*/_ORT_MEM_ADDR_")).unwrap();
    fs::write(place.file("*/_ORT_MEM_ADDR_/*"), "x").unwrap();
    let absolute = place.0.path().join("secret");
    for (location, why) in [
        (
            absolute.to_str().unwrap(),
            "named from the version's folder",
        ),
        ("../../../secret", "named from the version's folder"),
        ("x/../../../../secret", "named from the version's folder"),
        ("link", "a link leads out"),
        ("up/secret", "a link leads out"),
        ("nowhere", "No such file"),
        (".", "not a file"),
        ("", "not a file"),
        ("*/_ORT_MEM_ADDR_/*", "that is no file"),
        ("a\0b", "NUL byte"),
    ] {
        let said = place.refused(&model(&field(5, &tensor(&[("location", location)]))));
        assert!(said.contains(why), "{location}: {said}");
        assert!(said.contains("tensor \"w\""), "{said}");
    }
}

#[test]
fn every_way_to_a_tensor_is_gone() {
    let place = Place::new();
    let bad = tensor(&[("location", "/etc/hostname")]);
    let node = |attribute: &[u8]| field(5, attribute);
    let nested = field(1, &node(&field(6, &field(5, &bad))));
    for (way, graph) in [
        ("initializer", field(5, &bad)),
        ("sparse values", field(15, &field(1, &bad))),
        ("sparse indices", field(15, &field(2, &bad))),
        ("constant", field(1, &node(&field(5, &bad)))),
        ("list of tensors", field(1, &node(&field(10, &bad)))),
        (
            "sparse constant",
            field(1, &node(&field(22, &field(1, &bad)))),
        ),
        ("sparse list", field(1, &node(&field(23, &field(2, &bad))))),
        ("branch", nested.clone()),
        (
            "branches",
            field(1, &node(&field(11, &field(1, &node(&field(5, &bad)))))),
        ),
    ] {
        let said = place.refused(&model(&graph));
        assert!(said.contains("/etc/hostname"), "{way}: {said}");
        // A second graph is merged into the first.
        let twice = [model(b""), field(7, &graph)].concat();
        assert!(place.refused(&twice).contains("/etc/hostname"), "{way}");
    }
    let function = [
        field(25, &field(7, &node(&field(5, &bad)))),
        field(25, &field(11, &field(5, &bad))),
        field(20, &field(1, &field(5, &bad))),
        field(20, &field(2, &field(5, &bad))),
    ];
    for model in function {
        assert!(place.refused(&model).contains("/etc/hostname"));
    }
}

#[test]
fn the_last_of_what_is_said_twice_is_not_the_only_one_that_counts() {
    let place = Place::new();
    fs::write(place.file("w"), [0; 8]).unwrap();
    for locations in [["w", "/etc/hostname"], ["/etc/hostname", "w"]] {
        let entries = locations.map(|location| ("location", location));
        let said = place.refused(&model(&field(5, &tensor(&entries))));
        assert!(said.contains("/etc/hostname"), "{said}");
    }
}

#[test]
fn data_is_inside_its_file() {
    let place = Place::new();
    fs::write(place.file("w"), [0; 64]).unwrap();
    for (offset, length, why) in [
        ("33", "32", "it has 64 bytes, and 65 are to be read"),
        (
            "18446744073709551615",
            "18446744073709551615",
            "are to be read",
        ),
        ("-1", "1", "no number of bytes"),
        ("0", "1e3", "no number of bytes"),
    ] {
        let entries = [("location", "w"), ("offset", offset), ("length", length)];
        let said = place.refused(&model(&field(5, &tensor(&entries))));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn sizes_are_bounded() {
    let place = Place::new();
    fs::write(place.file("w"), [0; 1000]).unwrap();
    let model = model(&field(5, &tensor(&[("location", "w")])));
    let whole = model.len() as u64 + 1000;
    assert_eq!(place.check(&model, whole), Ok(()));
    let said = place.check(&model, whole - 1).unwrap_err();
    assert!(said.contains(&format!("{whole} bytes")) && said.contains("--max-model-bytes"));
    let many: Vec<(&str, &str)> = vec![("checksum", "x"); MOST_ENTRIES + 1];
    assert!(
        place
            .refused(&self::model(&field(5, &tensor(&many))))
            .contains("more than 16")
    );
    let long = "x".repeat(LONGEST as usize + 1);
    let said = place.refused(&self::model(&field(5, &tensor(&[("location", &long)]))));
    assert!(said.contains("at most 4096"), "{said}");
    let names: Vec<String> = (0..=MOST_FILES).map(|number| number.to_string()).collect();
    let graph: Vec<u8> = names
        .iter()
        .flat_map(|name| field(5, &tensor(&[("location", name)])))
        .collect();
    assert!(
        place
            .refused(&self::model(&graph))
            .contains("more than 4096 files")
    );
}

#[test]
fn what_is_cut_off_or_never_ends_is_refused() {
    let place = Place::new();
    let whole = model(&field(5, &tensor(&[("offset", "1")])));
    for length in [1, 3, whole.len() / 2, whole.len() - 1] {
        assert!(place.refused(&whole[..length]).contains("no ONNX model"));
    }
    let mut deep = Vec::new();
    for _ in 0..60 {
        deep = field(1, &field(5, &field(6, &deep)));
    }
    assert!(
        place
            .refused(&model(&deep))
            .contains("nested more than 100 deep")
    );
    for (bytes, why) in [
        (vec![0xff; 11], "more than 10 bytes"),
        (varint(1 << 3 | 3), "field of kind 3"),
        (
            [varint(7 << 3 | 2), varint(u64::MAX)].concat(),
            "ends behind its end",
        ),
        (vec![0x80], "a number ends behind its end"),
        (field(7, &field(5, &field(NAME, &[0xff]))), "not UTF-8"),
    ] {
        let said = place.refused(&bytes);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn what_is_no_file_is_not_opened() {
    let place = Place::new();
    let _socket = std::os::unix::net::UnixListener::bind(place.file("model.onnx")).unwrap();
    let said = check(&place.file("model.onnx"), u64::MAX).unwrap_err();
    assert_eq!(said, "it is not a file");
}

#[test]
fn onnx_runtimes_own_format_is_known_by_its_name() {
    let place = Place::new();
    fs::write(place.file("model.ort"), b"\x20\0\0\0ORTM\xff\xff").unwrap();
    assert_eq!(check(&place.file("model.ort"), u64::MAX), Ok(()));
    let bad = model(&field(5, &tensor(&[("location", "/etc/hostname")])));
    fs::write(place.file("model.ort"), bad).unwrap();
    assert!(check(&place.file("model.ort"), u64::MAX).is_err());
}

#[test]
fn a_spoilt_model_is_refused_or_read_and_nothing_else() {
    let place = Place::new();
    let bad = tensor(&[("location", "/etc/hostname"), ("offset", "1")]);
    // Without the data, so that what is spoilt says something.
    let spoiled = model(&field(1, &field(5, &field(6, &field(5, &bad)))));
    let ends = [0..100, spoiled.len() - 20..spoiled.len()];
    for position in ends.into_iter().flatten() {
        for bits in [0x01, 0x80, 0xff] {
            let mut spoilt = spoiled.clone();
            spoilt[position] ^= bits;
            // Whatever it says: it says it.
            let _ = place.check(&spoilt, u64::MAX);
        }
    }
}
