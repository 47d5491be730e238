//! Limits of the chat model. Each has a number, a unit and its source.

/// Longest text of a post, in bytes of UTF-8. The reference announces its own limit to clients at sign-in (chat-model
/// §6, a sample of 512 for a message and 4,096 for a story); ours takes a story's worth of text in any script.
pub const POST_BYTES_MAX: usize = 16 * 1024;

/// Longest room or category name and description, in characters (chat-model §6).
pub const NAME_CHARS_MAX: usize = 256;

/// Longest user or group name, in characters (a user URI in the reference's compliance data has 255).
pub const PRINCIPAL_NAME_CHARS_MAX: usize = 255;

/// Shortest password that is accepted, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Longest password that is accepted, in bytes: bounds the work of hashing.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Entries handed out when a client joins a room without saying more (`DefaultChatHistory`, chat-model §17).
pub const HISTORY_DEFAULT: u32 = 30;

/// Most entries in one page of history.
pub const HISTORY_PAGE_MAX: u32 = 1000;

/// Rooms that one connection may have joined.
pub const ROOMS_PER_CONNECTION_MAX: usize = 1000;

/// Largest frame that a client may send, in bytes: a post of the largest size, escaped, with its envelope.
pub const CLIENT_FRAME_BYTES_MAX: usize = 6 * POST_BYTES_MAX + 1024;
