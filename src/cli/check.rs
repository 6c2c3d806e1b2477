//! `reedi config check`.

use clap::ArgMatches;

pub fn run(matches: &ArgMatches) -> Result<(), String> {
    let effective = super::effective(matches)?;
    print!("{}", effective.describe());
    for warning in effective.config.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
