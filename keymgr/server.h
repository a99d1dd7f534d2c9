/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections: accepted, bounded in number (in all and for each user) and in the time that they take to say HELLO, read by the loop, written without ever waiting. What
 * a slow reader does not take is queued up to a bound; beyond it the connection is dropped.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_SERVER_H
#define SECPOOL_KEYMGR_SERVER_H

#include "keymgr/daemon.h"
#include "lib/wire/sock.h"

/* Connections in all, as many as the enclave has sessions; of these for the daemon's own user and root alone; and of one user that is not the daemon's own. */
enum { SERVER_CONNECTIONS_MOST = 16384, SERVER_CONNECTIONS_STAFF = 64, SERVER_CONNECTIONS_PER_USER = 4096 };
/* Messages queued for a reader that is slow, for all of a user's readers, and the level up to which a list is read ahead. */
enum { SERVER_QUEUE_MOST = 256, SERVER_QUEUE_PER_USER = 4096, SERVER_QUEUE_LIST = 32 };

enum server_state { SERVER_NEW = 0, SERVER_READY, SERVER_SESSION, SERVER_STATES };

struct session;
struct server_output;

/* What a LIST request is being answered with. */
struct server_list {
	bool active;    /* rows are still to come */
	bool following; /* all rows were sent; new ones come as they happen */
	uint32_t number, what;
	uint64_t after;
};

struct server_connection {
	struct server_connection *next, *previous; /* of all; closing ones until the loop is back */
	struct server_connection *closed_next;     /* of those that are closing */
	struct server_connection *turn_next, *turn_previous; /* of its user's that wait (turns.h) */
	struct turns_user *user;
	bool waiting; /* for its turn */
	bool busy;    /* a request is under way: nothing is read before server_resume */
	struct daemon *daemon;
	int fd;
	struct sock_peer peer;
	uint64_t accepted_ns; /* process_boot_ns then */
	uint64_t hello_by_ns; /* clock_now_ns until which it must have said HELLO */
	enum server_state state;
	uint32_t role; /* enum msg_role once the state is not NEW */
	struct session *session;
	struct server_list list;
	bool closing;
	uint32_t armed; /* what the next report is awaited for, as in epoll_ctl(2); 0: none */
	struct server_output *first, *last;
	unsigned queued;
};

/* Serves the listening socket (borrowed). Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error server_new(struct daemon *daemon, int listener, struct server **ret_server) MUST_USE;
/* Ends all connections. NULL is allowed. */
void server_free(struct server *server);

/* Sends or queues a message, with one descriptor (borrowed) or -1. A reader that is too slow, or gone, is closed soon after. */
void server_send(struct server_connection *connection, const struct msg *msg, int fd);

/* The connection's request is under way: its next message is read after server_resume, when it was answered. */
void server_hold(struct server_connection *connection);
void server_resume(struct server_connection *connection);

/* The connection is no tenant's but a command's or hotplugd's. Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error server_is_staff(struct server_connection *connection) MUST_USE;

/* Sends REPLY with the error and this thread's sentence. */
void server_reply(struct server_connection *connection, uint32_t number, enum secpool_error error);

/* Ends a connection: at once for the peer, its memory when the loop is back. */
void server_close(struct server_connection *connection);

/* The first connection, for walks: next leads on. Connections that are closing are among them. */
struct server_connection *server_first(struct server *server);

/* Goes on with the lists of all connections that follow events. */
void server_feed_followers(struct server *server);

unsigned server_count(const struct server *server);

#endif
