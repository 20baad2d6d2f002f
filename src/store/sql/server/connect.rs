//! Connecting to a database server at a start: a first try that says why it fails, a look at what the session and the
//! schema are, and then the pools.

use std::fmt::Debug;
use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::pool::PoolOptions;

use super::{OpenServer, Server, ServerDatabase, ServerFuture, ServerPools};
use crate::invalid::Invalid;
use crate::store::StoreError;
use crate::store::sql::dialect::Dialect;
use crate::store::sql::error_text::{CONNECT_TIMEOUT, ErrorContext};
use crate::store::sql::migrate::{self, Schema};
use crate::store::sql::query::SqlConnection as _;

/// Connections for readers, and the one that listens.
const READERS: u32 = 5;

/// What is to be done with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaAction {
    Look,
    Migrate,
}

/// Where a server is, and how it is connected to.
pub(crate) trait ServerUrl: Debug + Send + Sync {
    fn dialect(&self) -> &'static dyn Dialect;

    /// The URL without a password.
    fn shown(&self) -> &str;

    /// Finds out whether the server takes a connection, and changes nothing.
    fn reach(&self) -> ServerFuture<'_, Result<(), StoreError>>;

    /// Looks at the schema, or brings it to this version; says how it stood.
    fn schema(&self, action: SchemaAction) -> ServerFuture<'_, Result<Schema, StoreError>>;

    /// Connects, and brings the schema to this version.
    fn open(&self) -> ServerFuture<'_, Result<Box<dyn OpenServer>, StoreError>>;
}

#[derive(Debug)]
struct Address<D: ServerDatabase> {
    options: D::Options,
    context: ErrorContext,
}

/// Reads a URL, if its scheme belongs to this kind of server.
pub(crate) fn parse<D: ServerDatabase>(url: &str) -> Option<Result<Arc<dyn ServerUrl>, Invalid>> {
    let (scheme, rest) = url.split_once("://")?;
    if !D::SCHEMES.contains(&scheme) {
        return None;
    }
    Some(address::<D>(scheme, rest))
}

fn address<D: ServerDatabase>(scheme: &str, rest: &str) -> Result<Arc<dyn ServerUrl>, Invalid> {
    let url = format!("{}://{rest}", D::URL_SCHEME.unwrap_or(scheme));
    let options = D::parse(&url).map_err(|error| invalid_url(&url, &error))?;
    D::check_options(&options)?;
    let is_at_socket = D::is_at_socket(&options);
    let context = ErrorContext { url: without_password(&url), dialect: D::DIALECT, is_at_socket };
    Ok(Arc::new(Address::<D> { options, context }))
}

/// What is wrong with a URL, without a part of it: any part may be secret, such as a password that was pasted into an
/// option.
fn invalid_url(url: &str, error: &sqlx::Error) -> Invalid {
    let message = error.to_string();
    let unquoted = message.split('"').step_by(2).collect::<Vec<_>>().join("…");
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut parts = rest.split(|letter: char| !letter.is_alphanumeric());
    // The names of options are no secret, and say where the fault is.
    let is_name = |part: &str| rest.contains(&format!("{part}="));
    if parts.any(|part| part.len() > 3 && unquoted.contains(part) && !is_name(part)) {
        return Invalid::new("url", "is not a URL of a database");
    }
    Invalid::new("url", unquoted)
}

fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        // A password may contain the sign that ends it: the last one counts.
        let (user, place) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:…@{place}"))
    };
    let text = hidden().unwrap_or_else(|| url.to_owned());
    // Options may hold a password too.
    text.split('?').next().unwrap_or_default().to_owned()
}

impl<D: ServerDatabase> Address<D> {
    /// Connects once. The error is the server's own, where a pool would only say that it has waited.
    async fn connect(&self) -> Result<D::Connection, StoreError> {
        let connecting = async {
            let mut connection = D::Connection::connect_with(&self.options).await?;
            set_all::<D>(&mut connection, D::FIRST_SESSION).await?;
            Ok(connection)
        };
        let Ok(connected) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await else {
            return Err(self.context.unavailable(&format!("no answer within {CONNECT_TIMEOUT:?}")));
        };
        connected.map_err(|error| self.context.unreachable(&error))
    }

    async fn pools(&self) -> Result<ServerPools<D>, StoreError> {
        let pool = |session: &'static [&'static str]| {
            let pool = PoolOptions::<D::Db>::new().acquire_timeout(CONNECT_TIMEOUT);
            pool.after_connect(move |connection, _| Box::pin(set_all::<D>(connection, session)))
        };
        // The scheduler finds out by itself that its connection is gone, and tries again.
        let core = pool(D::CORE_SESSION).max_connections(1).idle_timeout(None).max_lifetime(None);
        let core = core.test_before_acquire(false).connect_with(self.options.clone()).await;
        let core = core.map_err(|error| self.context.unreachable(&error))?;
        let readers = pool(D::READER_SESSION).max_connections(READERS);
        Ok(ServerPools { core, readers: readers.connect_lazy_with(self.options.clone()) })
    }
}

impl<D: ServerDatabase> ServerUrl for Address<D> {
    fn dialect(&self) -> &'static dyn Dialect {
        D::DIALECT
    }

    fn shown(&self) -> &str {
        &self.context.url
    }

    fn reach(&self) -> ServerFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let closed = self.connect().await?.close().await;
            closed.map_err(|error| self.context.unreachable(&error))
        })
    }

    fn schema(&self, action: SchemaAction) -> ServerFuture<'_, Result<Schema, StoreError>> {
        Box::pin(async move {
            let mut connection = self.connect().await?;
            D::check_session(&mut connection, &self.options, &self.context).await?;
            let migrator = migrate::migrator(D::DIALECT);
            let schema = match action {
                SchemaAction::Look => {
                    migrate::look_at_server(D::DIALECT, &mut connection, &migrator).await
                }
                SchemaAction::Migrate => D::migrate(&mut connection, migrator).await,
            };
            schema.map_err(|error| error.at(&self.context))
        })
    }

    fn open(&self) -> ServerFuture<'_, Result<Box<dyn OpenServer>, StoreError>> {
        Box::pin(async move {
            self.schema(SchemaAction::Migrate).await?;
            let server: Box<dyn OpenServer> = Box::new(Server::<D>::new(self.pools().await?));
            Ok(server)
        })
    }
}

async fn set_all<D: ServerDatabase>(
    connection: &mut D::Connection,
    settings: &[&'static str],
) -> Result<(), sqlx::Error> {
    for setting in settings {
        connection.set(setting).await?;
    }
    Ok(())
}
