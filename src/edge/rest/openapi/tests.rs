use super::refusals::{of, operations};
use super::{PAGE, build, json};
use reedi_protocol::ErrorCode;
use std::collections::BTreeSet;

/// Makes `docs/openapi.json` anew instead of checking it, where set.
const REGENERATE: &str = "REEDI_TEST_REGENERATE";

#[test]
fn the_checked_in_openapi_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(path, json()).unwrap();
    }
    let standing = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        standing == json(),
        "docs/openapi.json is out of date: run `{REGENERATE}=1 cargo test --lib \
         the_checked_in_openapi_is_current` and commit it"
    );
}

#[test]
fn every_operation_has_an_id_and_a_row_of_refusals() {
    let mut document = build();
    let (mut ids, mut codes) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations(&mut document) {
        let id = operation.operation_id.clone().unwrap();
        codes
            .extend(of(&id).unwrap_or_else(|| panic!("{id} is not in refusals.rs")).iter().map(|c| c.code()));
        assert!(operation.summary.is_some(), "{id} says nothing about itself");
        assert!(ids.insert(id.clone()), "{id} twice");
    }
    // Those of the socket alone, and of paths and methods that there are not.
    codes.extend([ErrorCode::UnknownEvent.code(), ErrorCode::MethodNotAllowed.code()]);
    for code in ErrorCode::ALL {
        assert!(codes.contains(code.code()), "no operation can answer {code}");
    }
}

#[test]
fn every_schema_that_a_body_has_comes_with_an_example() {
    let text = serde_json::to_value(build()).unwrap();
    for path in text["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            for status in ["200", "201"] {
                check_example(
                    &text,
                    &operation["responses"][status]["content"]["application/json"]["schema"],
                );
            }
            check_example(&text, &operation["requestBody"]["content"]["application/json"]["schema"]);
        }
    }
}

fn check_example(document: &serde_json::Value, schema: &serde_json::Value) {
    let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) else { return };
    let schema = &document["components"]["schemas"][name];
    let example = &schema["examples"][0];
    assert!(example.is_object(), "{name} has no example");
    for field in example.as_object().unwrap().keys() {
        assert!(!schema["properties"][field].is_null(), "{name} does not document `{field}`");
    }
    for field in schema["required"].as_array().into_iter().flatten().filter_map(|f| f.as_str()) {
        assert!(example.get(field).is_some(), "the example of {name} lacks `{field}`");
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    assert!(!PAGE.contains("http://") && !PAGE.contains("https://"), "a URL of another server");
    assert!(!PAGE.contains("src=") && !PAGE.contains("@import") && !PAGE.contains("innerHTML"));
}
