//! Canaries: a real write, in a table of their own.

use crate::connection::Store;
use crate::error::StoreError;
use tokio_postgres::Transaction;

impl Store {
    /// Write this server's next canary, durably, and return its number.
    pub async fn write_canary(&self) -> Result<i64, StoreError> {
        let doing = "write a canary";
        loop {
            let result = self
                .write_tx(doing, async |tx: &Transaction<'_>| {
                    let row = tx
                        .query_one(
                            "INSERT INTO standfast.canaries AS c (server, epoch, n) VALUES ($1, $2, 1)
                             ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, n = c.n + 1, at = clock_timestamp()
                             RETURNING n",
                            &[&self.application(), &self.epoch().0],
                        )
                        .await?;
                    Ok(row.get(0))
                })
                .await;
            match result {
                Err(StoreError::Unknown { .. }) => {}
                other => return other,
            }
        }
    }
}
