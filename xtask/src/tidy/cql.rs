//! Each table of the store says of which kind it is (rule P8): which of two writes to a cell stands.

use super::Finding;
use super::tree::Tree;

/// `position`: the write of the higher position, or the lower where minus it is used. `clock`: the later
/// one by the clock, where that is good enough. `lwt`: conditional statements alone.
const KINDS: &[&str] = &["position", "clock", "lwt"];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for text in tree.texts.iter().filter(|text| text.path.ends_with(".cql")) {
        let lines: Vec<&str> = text.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.trim_start().to_ascii_uppercase().starts_with("CREATE TABLE") {
                continue;
            }
            let above = number.checked_sub(1).map_or("", |before| lines[before]);
            let kind = above.strip_prefix("-- kind: ").map(|kind| kind.split(' ').next().unwrap_or_default());
            let says = match kind {
                Some(kind) if KINDS.contains(&kind) => continue,
                Some(kind) => format!("`{kind}` is no kind of table; there are {}", KINDS.join(", ")),
                None => {
                    format!("a table of no kind: say `-- kind: ...` right above, one of {}", KINDS.join(", "))
                }
            };
            findings.push(Finding { file: text.path.clone(), line: number + 1, rule: "cql", says });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::broken_by;

    #[test]
    fn a_table_says_its_kind() {
        let text = "-- up\n\n-- kind: position (minus it)\nCREATE TABLE IF NOT EXISTS a (\n);\n\n\
                    -- What b is.\nCREATE TABLE IF NOT EXISTS b (\n);\n-- kind: eventual\ncreate table c (\n);\n";
        assert_eq!(
            broken_by(&[("cql/0001_a.cql", text)]),
            ["cql/0001_a.cql:11 [cql]", "cql/0001_a.cql:8 [cql]"]
                .map(str::to_owned)
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
        );
    }
}
