/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/server.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keymgr/dispatch.h"
#include "keymgr/lists.h"
#include "keymgr/patience.h"
#include "keymgr/process.h"
#include "keymgr/session.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* How long a connection may take to say HELLO, how often that is looked at, and how long nothing is accepted after a failure. */
#define HELLO_NS     (5 * CLOCK_NS_PER_S)
#define LOOK_US	     (500 * 1000ull)
#define NO_ACCEPT_US (200 * 1000ull)

/* Messages read from one connection before the others get their turn; packets thrown away at its end. */
enum { TURN_MESSAGES = 16, DRAIN_PACKETS = 64 };

struct server_output {
	struct server_output *next;
	int fd;
	struct msg msg;
};

struct server {
	struct daemon *daemon;
	struct server_connection *first;
	unsigned count;
	int listener;
	sd_event_source *accept_source, *reap_source;
	struct patience *patience;
	struct log_limit refused;
};

static void drop_output(struct server_connection *connection)
{
	struct server_output *output = connection->first;

	connection->first = output->next;
	if (!connection->first)
		connection->last = NULL;
	connection->queued--;
	os_close(&output->fd);
	free(output);
}

static void free_connection(struct server_connection *connection)
{
	while (connection->first)
		drop_output(connection);
	sd_event_source_disable_unref(connection->source);
	os_close(&connection->fd);
	free(connection);
}

/* Closed connections are freed here, where no walk over the list is under way. */
static int on_reap(sd_event_source *source, void *arg)
{
	struct server *server = arg;
	struct server_connection **at = &server->first;

	(void)source;
	while (*at) {
		struct server_connection *connection = *at;

		if (!connection->closing) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		server->count--;
		free_connection(connection);
	}
	return 0;
}

void server_close(struct server_connection *connection)
{
	struct sock_extra extra = {.fd_count = 0};
	struct msg msg;

	if (connection->closing)
		return;
	connection->closing = true;
	dispatch_ended(connection);
	/* unread packets would make the peer lose what we sent last (unix(7): ECONNRESET) */
	for (int i = 0; i < DRAIN_PACKETS; i++) {
		enum secpool_error error = sock_receive(connection->fd, &msg, &extra, 0);

		sock_close_fds(&extra);
		if (error && error != SECPOOL_E_PROTOCOL)
			break;
	}
	/* the enclave may still hold this socket: only this ends the connection for both */
	shutdown(connection->fd, SHUT_RDWR);
	sd_event_source_set_enabled(connection->source, SD_EVENT_OFF);
	sd_event_source_set_enabled(connection->daemon->server->reap_source, SD_EVENT_ONESHOT);
}

static void watch_output(struct server_connection *connection, bool wanted)
{
	uint32_t events = EPOLLIN | (wanted ? (uint32_t)EPOLLOUT : 0);

	if (!connection->closing)
		sd_event_source_set_io_events(connection->source, events);
}

static void queue_output(struct server_connection *connection, const struct msg *msg, int fd)
{
	struct server_output *output = NULL;

	if (connection->queued < SERVER_QUEUE_MOST)
		output = calloc(1, sizeof *output);
	if (!output) {
		if (log_allowed(&connection->daemon->server->refused))
			log_event(LOG_LEVEL_WARNING, "slow-reader", "pid=%d uid=%u",
				connection->peer.pid, connection->peer.uid);
		server_close(connection);
		return;
	}
	output->msg = *msg;
	output->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (fd >= 0 && output->fd < 0) {
		/* a message without the descriptor that it must bring would say something else */
		if (log_allowed(&connection->daemon->server->refused))
			log_event(LOG_LEVEL_WARNING, "no-descriptor", "pid=%d uid=%u",
				connection->peer.pid, connection->peer.uid);
		free(output);
		server_close(connection);
		return;
	}
	if (connection->last)
		connection->last->next = output;
	else
		connection->first = output;
	connection->last = output;
	connection->queued++;
	watch_output(connection, true);
}

void server_send(struct server_connection *connection, const struct msg *msg, int fd)
{
	enum secpool_error error;

	if (connection->closing)
		return;
	if (connection->first) {
		queue_output(connection, msg, fd);
		return;
	}
	error = sock_send(connection->fd, msg, &fd, fd >= 0 ? 1 : 0, 0);
	if (error == SECPOOL_E_TIMEOUT)
		queue_output(connection, msg, fd);
	else if (error)
		server_close(connection);
}

void server_reply(struct server_connection *connection, uint32_t number, enum secpool_error error)
{
	struct msg msg = {.type = MSG_REPLY, .number = number};

	msg.u.reply.error = (uint32_t)error;
	MSG_SET(msg.u.reply.detail, error ? err_detail() : "");
	server_send(connection, &msg, -1);
}

/* Rows of a list are made only as far as the reader takes them. */
static void feed_list(struct server_connection *connection)
{
	struct server_list *list = &connection->list;

	while (list->active && !connection->closing && connection->queued < SERVER_QUEUE_LIST) {
		struct msg row = {.number = list->number};
		enum secpool_error error =
			lists_next(connection->daemon, list->what, &list->after, &row);

		if (!error) {
			server_send(connection, &row, -1);
			continue;
		}
		list->active = false;
		if (error == SECPOOL_E_NOT_FOUND && list->following)
			return;
		server_reply(connection, list->number,
			error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error);
	}
}

void server_feed_followers(struct server *server)
{
	for (struct server_connection *c = server->first; c; c = c->next)
		if (c->list.following && !c->closing) {
			c->list.active = true;
			feed_list(c);
		}
}

static void flush_output(struct server_connection *connection)
{
	while (connection->first && !connection->closing) {
		struct server_output *output = connection->first;
		enum secpool_error error = sock_send(
			connection->fd, &output->msg, &output->fd, output->fd >= 0 ? 1 : 0, 0);

		if (error == SECPOOL_E_TIMEOUT)
			return;
		if (error) {
			server_close(connection);
			return;
		}
		drop_output(connection);
	}
	watch_output(connection, false);
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct server_connection *connection = arg;

	(void)source;
	if (events & EPOLLOUT)
		flush_output(connection);
	for (int i = 0; i < TURN_MESSAGES && !connection->closing; i++) {
		struct sock_extra extra = {.fd_count = 0};
		struct msg msg;
		enum secpool_error error = sock_receive(fd, &msg, &extra, 0);

		if (error == SECPOOL_E_NO_EVENT)
			break;
		if (error) {
			if (error == SECPOOL_E_PROTOCOL)
				dispatch_refuse(connection, 0, error);
			server_close(connection);
			break;
		}
		dispatch_message(connection, &msg, &extra);
		sock_close_fds(&extra);
	}
	if (!connection->closing)
		feed_list(connection);
	return 0;
}

/* Whether one more connection of this peer is within the limits. */
static enum secpool_error check_limits(const struct server *server, const struct sock_peer *peer)
{
	unsigned same = 0;

	if (server->count >= SERVER_CONNECTIONS_MOST)
		return err_set(SECPOOL_E_LIMIT, "keymgrd has %u connections, no more are accepted",
			server->count);
	for (const struct server_connection *c = server->first; c; c = c->next)
		same += c->peer.uid == peer->uid;
	if (same >= SERVER_CONNECTIONS_PER_USER && peer->uid != geteuid())
		return err_set(SECPOOL_E_LIMIT,
			"user %u has %u connections to keymgrd, no more are accepted", peer->uid,
			same);
	return SECPOOL_OK;
}

static void add_connection(struct server *server, int fd)
{
	struct server_connection *connection = calloc(1, sizeof *connection);
	enum secpool_error error = SECPOOL_E_NO_MEMORY;

	if (!connection)
		goto out;
	*connection = (struct server_connection){.daemon = server->daemon, .fd = -1};
	connection->accepted_ns = process_boot_ns();
	error = sock_peer(fd, &connection->peer);
	if (!error)
		error = check_limits(server, &connection->peer);
	if (!error && sd_event_add_io(server->daemon->loop, &connection->source, fd, EPOLLIN,
			      on_connection, connection) < 0)
		error = err_set(SECPOOL_E_SYSTEM, "keymgrd can't watch one more connection");
	if (error)
		goto out;
	connection->fd = fd;
	connection->next = server->first;
	server->first = connection;
	server->count++;
	patience_hello(server->patience, connection);
	return;
out:
	if (log_allowed(&server->refused))
		log_error("connection-refused", error);
	if (sock_reply(fd, 0, error, 0) != SECPOOL_OK)
		log_event(LOG_LEVEL_DEBUG, "connection-gone", "fd=%d", fd);
	os_close(&fd);
	free(connection);
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *arg)
{
	struct server *server = arg;
	enum secpool_error error;
	int fd = -1;

	(void)source;
	(void)events;
	error = sock_accept(listener, &fd);
	if (!error)
		add_connection(server, fd);
	else if (error != SECPOOL_E_NO_EVENT) {
		if (log_allowed(&server->refused))
			log_error("accept-failed", error);
		/* no descriptor or no memory: it waits in the queue, the loop must not turn round it */
		patience_pause(server->patience, server->accept_source);
	}
	return 0;
}

enum secpool_error server_new(struct daemon *daemon, int listener, struct server **ret_server)
{
	struct server *server = calloc(1, sizeof *server);

	if (!server)
		return err_set(SECPOOL_E_NO_MEMORY, "server: out of memory");
	*server = (struct server){.daemon = daemon,
		.listener = listener,
		.refused = {.period_ns = CLOCK_NS_PER_S, .burst = 10}};
	if (sd_event_add_io(daemon->loop, &server->accept_source, listener, EPOLLIN, on_accept,
		    server) < 0 ||
		sd_event_add_defer(daemon->loop, &server->reap_source, on_reap, server) < 0 ||
		patience_new(daemon, &server->patience) != SECPOOL_OK) {
		server_free(server);
		return err_set(SECPOOL_E_SYSTEM, "the listening socket can't be watched");
	}
	sd_event_source_set_enabled(server->reap_source, SD_EVENT_OFF);
	*ret_server = server;
	return SECPOOL_OK;
}

void server_free(struct server *server)
{
	if (!server)
		return;
	while (server->first) {
		struct server_connection *connection = server->first;

		server->first = connection->next;
		free_connection(connection);
	}
	sd_event_source_disable_unref(server->accept_source);
	sd_event_source_disable_unref(server->reap_source);
	patience_free(server->patience);
	free(server);
}

struct server_connection *server_first(struct server *server)
{
	return server->first;
}

unsigned server_count(const struct server *server)
{
	return server->count;
}
