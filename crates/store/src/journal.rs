//! The journal of administrative changes: each is noted by the transaction that makes it, so that none can be made and not be
//! in it, nor be in it and not be made.

use crate::connection::TxError;
use rules::change::Change;
use rules::id::{Epoch, PrincipalId};
use tokio_postgres::Transaction;

/// Note changes, at the end of their transaction.
pub(crate) async fn note(
    tx: &Transaction<'_>,
    epoch: Epoch,
    actor: PrincipalId,
    changes: &[Change],
) -> Result<(), TxError> {
    if changes.is_empty() {
        return Ok(());
    }
    let changes: Vec<serde_json::Value> = changes
        .iter()
        .map(|change| serde_json::to_value(change).expect("a change is made of text and numbers"))
        .collect();
    tx.execute("SELECT standfast.note_changes($1, $2, $3)", &[&epoch.0, &actor.0, &changes]).await?;
    Ok(())
}
