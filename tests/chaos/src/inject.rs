//! Doing what a fault says, and undoing it.

use crate::cluster::{Cluster, ClusterError};
use crate::fault::{Fault, Kind};
use crate::line::Line;
use rustix::process::Signal;

/// Begins a fault.
pub async fn begin(cluster: &mut Cluster, fault: &Fault) -> Result<(), ClusterError> {
    let name = fault.target();
    if !fault.class.is_role() {
        return match fault.kind {
            Kind::Kill => Ok(cluster.components.node("kill", &name).await?),
            Kind::Hold => Ok(cluster.components.node("stop", &name).await?),
            // The restart is one step, at the end.
            _ => Ok(()),
        };
    }
    let Some(role) = cluster.role(&name) else { return Ok(()) };
    role.note(&format!("begins: {fault}"));
    match fault.kind {
        Kind::Kill => role.kill().await?,
        Kind::Hold => role.signal(Signal::STOP)?,
        Kind::Restart => role.leave().await?,
        Kind::Cut => role.lines.set(Line::Cut),
        Kind::Mute => role.lines.set(Line::Held),
        Kind::Lossy => role.lines.set(Line::Lossy),
    }
    Ok(())
}

/// Ends a fault.
pub async fn end(cluster: &mut Cluster, fault: &Fault) -> Result<(), ClusterError> {
    let name = fault.target();
    if !fault.class.is_role() {
        let action = if fault.kind == Kind::Hold { "cont" } else { "restart" };
        return Ok(cluster.components.node(action, &name).await?);
    }
    let Some(role) = cluster.role(&name) else { return Ok(()) };
    role.note(&format!("ends: {fault}"));
    match fault.kind {
        Kind::Kill | Kind::Restart => role.start()?,
        Kind::Hold => role.signal(Signal::CONT)?,
        Kind::Cut | Kind::Mute | Kind::Lossy => role.lines.set(Line::Open),
    }
    Ok(())
}

/// Waits until everything is as before the faults, so that the next one is a single one too.
pub async fn steady(cluster: &mut Cluster, faults: &[Fault]) -> Result<(), ClusterError> {
    cluster.ready().await?;
    for fault in faults.iter().filter(|fault| !fault.class.is_role()) {
        cluster.components.node("wait", &fault.target()).await?;
    }
    Ok(())
}
