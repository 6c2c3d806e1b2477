//! Bad input against a whole service in this process, over real sockets: whatever comes in, the answer
//! says what is wrong with it, nobody else notices, and nothing is lost.

mod authentication;
mod bodies;
mod content;
mod hidden;
mod http;
mod limits;
mod origins;
mod raw;
mod reads;
mod routes;
mod service;
mod sockets;
mod strangers;
mod traces;
mod upgrades;
mod websocket;
