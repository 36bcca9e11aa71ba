//! Writes the seeds of a target into a folder, one file each.
//!
//!     spore-fuzz-seeds TARGET FOLDER

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = arguments.as_slice() else {
        let names: Vec<_> = spore_fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: spore-fuzz-seeds TARGET FOLDER; targets: {}",
            names.join(" ")
        );
        return Ok(ExitCode::FAILURE);
    };
    let Some(target) = spore_fuzz::target(name) else {
        eprintln!("there is no target `{name}`");
        return Ok(ExitCode::FAILURE);
    };
    fs::create_dir_all(folder)?;
    for (index, seed) in (target.seeds)().iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{index:02}")), seed)?;
    }
    Ok(ExitCode::SUCCESS)
}
