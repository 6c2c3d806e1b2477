//! Looking for a text where none may be: in bytes, files, streams and tables.

use super::backend::{Backend, cql_session};
use futures_util::TryStreamExt;
use reedi::log::{Log, LogPort, LogReader, ShardSet};
use reedi_protocol::Position;
use scylla::value::{CqlValue, Row};
use std::path::Path;

pub fn holds(bytes: &[u8], text: &str) -> bool {
    // In JSON and in tables it would stand as it is; the mark has no character that anybody escapes. What is
    // no text is replaced, and searching a text is quick in a debug build too.
    String::from_utf8_lossy(bytes).contains(text)
}

/// The files below `folder` that hold `text`.
pub fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, text)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// How many records of the log hold `text`, of how many.
pub async fn records_with(log: &Log, text: &str) -> (usize, usize) {
    let (mut found, mut all) = (0, 0);
    for slice in log.slices() {
        let end = log.state(slice).await.expect("a state").last;
        let mut at = Position::START;
        let mut reader = log.read(slice, ShardSet::all(), at).await.expect("it reads");
        while at < end {
            for record in reader.next(1_000).await.expect("it reads on") {
                at = record.position;
                all += 1;
                let traced = record.traceparent.is_some_and(|trace| trace.to_string().contains(text));
                found += usize::from(holds(&record.payload, text) || traced);
            }
        }
    }
    (found, all)
}

/// The tables that hold `text`, and how many rows were looked at.
pub async fn tables_with(backend: &Backend, text: &str) -> (Vec<String>, usize) {
    tables_where(backend, |value| value_holds(value, text)).await
}

/// The tables that hold `bytes`, and how many rows were looked at.
pub async fn tables_with_bytes(backend: &Backend, bytes: &[u8]) -> (Vec<String>, usize) {
    tables_where(backend, |value| matches!(value, CqlValue::Blob(held) if holds_bytes(held, bytes))).await
}

pub fn holds_bytes(held: &[u8], bytes: &[u8]) -> bool {
    held.windows(bytes.len()).any(|window| window == bytes)
}

async fn tables_where(backend: &Backend, fits: impl Fn(&CqlValue) -> bool) -> (Vec<String>, usize) {
    let Backend::Real { cql, name, .. } = backend else { return (Vec::new(), 0) };
    let session = cql_session(&cql.split(',').map(str::to_owned).collect::<Vec<_>>()).await;
    let query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.query_unpaged(query, (name,)).await.expect("tables are listed");
    let tables = tables.into_rows_result().expect("rows");
    let (mut found, mut count) = (Vec::new(), 0);
    for table in tables.rows::<(String,)>().expect("names") {
        let (table,) = table.expect("a name");
        let all = format!("SELECT * FROM {name}.{table}");
        let rows = session.query_iter(all, ()).await.expect("it reads");
        let mut rows = rows.rows_stream::<Row>().expect("rows");
        while let Some(row) = rows.try_next().await.expect("a row") {
            count += 1;
            if row.columns.iter().flatten().any(&fits) {
                found.push(table.clone());
            }
        }
    }
    (found, count)
}

fn value_holds(value: &CqlValue, text: &str) -> bool {
    match value {
        CqlValue::Blob(bytes) => holds(bytes, text),
        CqlValue::List(values) | CqlValue::Set(values) => values.iter().any(|value| value_holds(value, text)),
        CqlValue::Map(pairs) => pairs.iter().any(|(k, v)| value_holds(k, text) || value_holds(v, text)),
        CqlValue::Text(held) | CqlValue::Ascii(held) => held.contains(text),
        other => format!("{other:?}").contains(text),
    }
}
