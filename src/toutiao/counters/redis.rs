//! Counters in Redis, where other processes of the application read and increment them.

use std::fmt;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Script};

use super::{CHUNK_MEMBERS, Correction, CounterError, Cursor, Member, MemberPage, Score};

/// How long to wait for a connection, and for a response. A chunk takes milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of further attempts to connect, for a server that is restarting.
const CONNECTION_RETRIES: usize = 2;

/// The largest number up to which doubles represent every whole number. Scores are doubles.
const MAX_EXACT: i64 = 1 << 53;

/// Corrects members one by one, each only if its score is still the one that was seen (empty if it was absent). The server
/// runs a script atomically, so no increment can come between the comparison and the change. Scores are compared both as
/// texts and as numbers, because one score can be written in two ways (0 and -0).
const CORRECT: &str = r"
local function same(score, seen)
    if score == seen then return true end
    local left, right = tonumber(score), tonumber(seen)
    return left ~= nil and left == right
end
local done = {}
for i = 1, #ARGV, 3 do
    local member, seen, to = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if same(redis.call('zscore', KEYS[1], member) or '', seen) then
        if to == '0' then
            redis.call('zrem', KEYS[1], member)
        else
            redis.call('zadd', KEYS[1], to, member)
        end
        done[#done + 1] = 1
    else
        done[#done + 1] = 0
    end
end
return done
";

#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
    correct: Script,
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects, and reconnects, when needed.
    pub(super) fn new(url: &str) -> Result<Self, CounterError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(CONNECTION_RETRIES);
        let manager = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { manager, correct: Script::new(CORRECT) })
    }

    pub(super) async fn page(
        &self,
        key: &str,
        after: Option<&Cursor>,
    ) -> Result<MemberPage, CounterError> {
        let cursor = after.map_or(b"0".as_slice(), |Cursor(cursor)| cursor.as_slice());
        let (next, flat): (Vec<u8>, Vec<Vec<u8>>) = redis::cmd("ZSCAN")
            .arg(key)
            .arg(cursor)
            .arg("COUNT")
            .arg(CHUNK_MEMBERS)
            .query_async(&mut self.manager.clone())
            .await?;
        let mut entries = Vec::with_capacity(flat.len() / 2);
        let mut values = flat.into_iter();
        while let (Some(member), Some(score)) = (values.next(), values.next()) {
            entries.push((Member(member), read_score(&score)));
        }
        let next = Some(next).filter(|next| next.as_slice() != b"0").map(Cursor);
        Ok(MemberPage { entries, next })
    }

    /// Sends a pipeline of single reads, because the command for many members requires Redis 6.2.
    pub(super) async fn scores(
        &self,
        key: &str,
        members: &[Member],
    ) -> Result<Vec<Option<Score>>, CounterError> {
        let mut pipeline = redis::pipe();
        for member in members {
            pipeline.cmd("ZSCORE").arg(key).arg(member.bytes());
        }
        let found: Vec<Option<Vec<u8>>> = pipeline.query_async(&mut self.manager.clone()).await?;
        Ok(found.into_iter().map(|score| score.map(|score| read_score(&score))).collect())
    }

    pub(super) async fn add(
        &self,
        key: &str,
        member: &Member,
        by: i64,
    ) -> Result<(), CounterError> {
        let command = redis::cmd("ZINCRBY").arg(key).arg(by).arg(member.bytes()).to_owned();
        Ok(command.exec_async(&mut self.manager.clone()).await?)
    }

    pub(super) async fn correct(
        &self,
        key: &str,
        corrections: &[Correction],
    ) -> Result<Vec<bool>, CounterError> {
        let mut call = self.correct.prepare_invoke();
        call.key(key);
        for correction in corrections {
            let seen = correction.from.as_ref().map(ToString::to_string).unwrap_or_default();
            call.arg(correction.member.bytes()).arg(seen).arg(correction.to);
        }
        let done: Vec<u8> = call.invoke_async::<Vec<u8>>(&mut self.manager.clone()).await?;
        Ok(done.into_iter().map(|done| done == 1).collect())
    }

    pub(super) async fn size(&self, key: &str) -> Result<u64, CounterError> {
        Ok(redis::cmd("ZCARD").arg(key).query_async(&mut self.manager.clone()).await?)
    }
}

fn read_score(bytes: &[u8]) -> Score {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<i64>() {
        Ok(count) if count.abs() <= MAX_EXACT => Score::Whole(count),
        _ => Score::Odd(text.into_owned()),
    }
}
