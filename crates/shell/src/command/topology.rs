//! `topology init|check|diff|publish|show` (Topology Builder, Publish-CsTopology).

mod init;
mod live;
mod publish;

use crate::agents::Agents;
use crate::drawing;
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::output;
use cluster::topology::Topology;
use cluster::topology_live::advice;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Ask what the pool is made of, and write a commented file that passes
    Init(init::Args),
    /// Check a file; each finding names its line, what is wrong and what would be right
    Check {
        /// The file
        file: PathBuf,
        /// Ask the hosts too: who answers, PostgreSQL's versions, clocks, and the share, written and read at both sites
        #[arg(long)]
        live: bool,
    },
    /// Compare a file with the published topology: what publishing will do, what it needs, whether users notice
    Diff {
        /// The file; the folder's own when left out
        file: Option<PathBuf>,
    },
    /// Check a file, show what differs, take out of use what leaves, publish, and bring into use what comes
    Publish(publish::Args),
    /// Draw the published topology, and how its parts stand
    Show(ShowArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ShowArgs {
    /// As the file that was published
    #[arg(long)]
    toml: bool,
    /// Write the drawing into this file, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "toml")]
    svg: Option<PathBuf>,
}

/// Run the command.
///
/// # Errors
/// When the file does not pass, or it fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Init(args) => init::run(&args),
        What::Check { file, live } => check(context, &file, live).await,
        What::Diff { file } => publish::diff(context, file).await,
        What::Publish(args) => publish::run(context, args).await,
        What::Show(args) => show(context, args).await,
    }
}

async fn check(context: &Context, file: &Path, live: bool) -> Outcome {
    let (text, topology) = read(file)?;
    let advice = advice(&topology);
    for finding in cluster::topology_file::warnings(&topology, &text) {
        output::say(&format!("{}:{}: warning: {}", file.display(), finding.line, finding.message));
    }
    let remarks = if live {
        let folder = context.folder()?;
        let lost = Agents::new(&folder)?.look().await.view.record.map(|r| r.lost_sites.into_keys().collect());
        let agents = Agents::new(&Folder { topology: topology.clone(), ..folder })?;
        live::look(&agents, &lost.unwrap_or_default()).await
    } else {
        Vec::new()
    };
    if context.json {
        output::json(&serde_json::json!({ "topology": topology, "advice": advice, "findings": remarks }))?;
    } else {
        advice.iter().for_each(|remark| output::say(&format!("note: {remark}")));
        live::print(&remarks)?;
    }
    if !remarks.is_empty() {
        return Err(Failure::Refused(format!(
            "{} passes by itself; its hosts do not show what it needs",
            file.display()
        )));
    }
    if context.json {
        return Ok(());
    }
    output::line(&format!(
        "{} passes: pool {}, {} sites, {} hosts, {} servers{}",
        file.display(),
        topology.pool,
        topology.sites.len(),
        topology.hosts.len(),
        topology.servers.len(),
        if live { "; its hosts show what it needs" } else { "" }
    ))
}

fn read(file: &Path) -> Result<(String, Topology), Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::Usage(format!("read the topology {}: {e}", file.display())))?;
    let topology = Topology::from_toml(&text).map_err(|findings| {
        let lines: Vec<String> =
            findings.iter().map(|f| format!("{}:{}: {}", file.display(), f.line, f.message)).collect();
        Failure::Refused(lines.join("\n"))
    })?;
    Ok((text, topology))
}

async fn show(context: &Context, args: ShowArgs) -> Outcome {
    let folder = context.folder()?;
    let agents = Agents::new(&folder)?;
    let look = agents.look().await;
    let home = look.view.record.as_ref().map(|r| r.home.clone());
    let home = home.or_else(|| folder.topology.primary_site().map(|s| s.name.clone()));
    let text = match &home {
        Some(home) => agents.published_text(&agents.authority(home)?).await,
        None => Err(look.nobody()),
    };
    let (topology, text) = match text {
        Ok(text) => {
            let topology = Topology::from_toml(&text)
                .map_err(|f| Failure::Failed(f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
            (topology, text)
        }
        Err(failure) if args.toml => return Err(failure),
        Err(failure) => {
            output::say(&format!("{failure}"));
            output::say("this is the folder's own copy; how things stand is not known");
            (folder.topology.clone(), String::new())
        }
    };
    if args.toml {
        return output::line(text.trim_end());
    }
    let view = (!look.view.reports.is_empty()).then_some(&look.view);
    let picture = drawing::picture(&topology, view);
    if let Some(file) = &args.svg {
        std::fs::write(file, drawing::svg::draw(&picture))
            .map_err(|e| Failure::Failed(format!("write the drawing {}: {e}", file.display())))?;
        output::say(&format!("drawn into {}", file.display()));
        return Ok(());
    }
    if context.json {
        return output::json(&topology);
    }
    output::line(drawing::text::draw(&picture, output::columns()).trim_end())
}
