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
#include "keymgr/turns.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Packets thrown away at a connection's end; connections taken in before others get their turn; reports in one call. */
enum { DRAIN_PACKETS = 64, ACCEPTS = 16, REPORTS = 256 };

struct server_output {
	struct server_output *next;
	int fd;
	struct msg msg;
};

struct server {
	struct daemon *daemon;
	struct server_connection *first, *closed;
	unsigned count;
	int listener;
	int ready; /* an epoll of all connections: the loop itself would look at each that is ready again for every other */
	sd_event_source *accept_source, *reap_source, *ready_source;
	struct patience *patience;
	struct turns *turns;
	struct log_limit refused;
};

static void drop_output(struct server_connection *connection)
{
	struct server_output *output = connection->first;

	connection->first = output->next;
	if (!connection->first)
		connection->last = NULL;
	connection->queued--;
	turns_queued(connection, -1);
	os_close(&output->fd);
	free(output);
}

static void free_connection(struct server_connection *connection)
{
	while (connection->first)
		drop_output(connection);
	turns_leave(connection->daemon->server->turns, connection);
	os_close(&connection->fd);
	free(connection);
}

static void unlink_connection(struct server *server, struct server_connection *connection)
{
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		server->first = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
	server->count--;
}

/* Closed connections are freed here, where no walk over the list is under way. */
static int on_reap(sd_event_source *source, void *arg)
{
	struct server *server = arg;

	(void)source;
	while (server->closed) {
		struct server_connection *connection = server->closed;

		server->closed = connection->closed_next;
		unlink_connection(server, connection);
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
	epoll_ctl(connection->daemon->server->ready, EPOLL_CTL_DEL, connection->fd, NULL);
	connection->closed_next = connection->daemon->server->closed;
	connection->daemon->server->closed = connection;
	sd_event_source_set_enabled(connection->daemon->server->reap_source, SD_EVENT_ONESHOT);
}

/*
 * What the next report is awaited for, each of which is given once: nothing (not even the peer's end) while the connection waits for its turn or its answer, and nothing is to be sent. One that is
 * awaited already for too much does no harm.
 */
static void watch(struct server_connection *connection)
{
	bool read = !connection->waiting && !connection->busy;
	uint32_t wanted =
		(read ? (uint32_t)EPOLLIN : 0) | (connection->first ? (uint32_t)EPOLLOUT : 0);
	struct epoll_event event = {.events = wanted | EPOLLONESHOT, .data.ptr = connection};

	if (connection->closing || (wanted & ~connection->armed) == 0)
		return;
	if (epoll_ctl(connection->daemon->server->ready, EPOLL_CTL_MOD, connection->fd, &event) !=
		0) {
		log_error("connection-not-watched", os_error("epoll_ctl"));
		server_close(connection);
		return;
	}
	connection->armed = wanted;
}

static void wait_for_turn(struct server_connection *connection)
{
	if (connection->closing)
		return;
	turns_wait(connection->daemon->server->turns, connection);
	watch(connection);
}

void server_hold(struct server_connection *connection)
{
	connection->busy = true;
}

void server_resume(struct server_connection *connection)
{
	connection->busy = false;
	wait_for_turn(connection);
}

enum secpool_error server_is_staff(struct server_connection *connection)
{
	return turns_join(connection->daemon->server->turns, connection, TURNS_STAFF);
}

static void queue_output(struct server_connection *connection, const struct msg *msg, int fd)
{
	struct server_output *output = NULL;

	if (connection->queued < SERVER_QUEUE_MOST &&
		turns_queued(connection, 0) < SERVER_QUEUE_PER_USER)
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
	turns_queued(connection, 1);
	watch(connection);
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
			break;
		if (error) {
			server_close(connection);
			return;
		}
		drop_output(connection);
	}
	watch(connection);
}

static void take_report(struct server_connection *connection, uint32_t events)
{
	connection->armed = 0;
	if (connection->closing)
		return;
	if (events & EPOLLOUT)
		flush_output(connection);
	if (!connection->closing)
		feed_list(connection);
	/* its end is read as a message is; one that is busy is looked at again when it is answered */
	if ((events & ~(uint32_t)EPOLLOUT) && !connection->busy)
		wait_for_turn(connection);
}

static int on_ready(sd_event_source *source, int fd, uint32_t unused, void *arg)
{
	struct epoll_event events[REPORTS];
	int count = epoll_wait(fd, events, REPORTS, 0);

	(void)source;
	(void)unused;
	(void)arg;
	/* connections that close meanwhile are freed later */
	for (int i = 0; i < count; i++)
		take_report(events[i].data.ptr, events[i].events);
	return 0;
}

/* One message of a connection whose turn it is. */
static void take_message(struct server_connection *connection)
{
	struct sock_extra extra = {.fd_count = 0};
	struct msg msg;
	enum secpool_error error;

	if (connection->closing)
		return;
	error = sock_receive(connection->fd, &msg, &extra, 0);
	if (error == SECPOOL_E_NO_EVENT) {
		watch(connection);
		return;
	}
	if (error) {
		if (error == SECPOOL_E_PROTOCOL)
			dispatch_refuse(connection, 0, error);
		server_close(connection);
		return;
	}
	dispatch_message(connection, &msg, &extra);
	sock_close_fds(&extra);
	if (connection->closing)
		return;
	feed_list(connection);
	if (connection->busy)
		watch(connection);
	else
		wait_for_turn(connection);
}

/* Whether one more connection of this peer is within the limits. */
static enum secpool_error check_limits(const struct server *server, const struct sock_peer *peer)
{
	bool staff = peer->uid == geteuid() || peer->uid == 0;
	unsigned same = turns_count(server->turns, peer->uid);

	if (server->count + (staff ? 0 : SERVER_CONNECTIONS_STAFF) >= SERVER_CONNECTIONS_MOST)
		return err_set(SECPOOL_E_LIMIT, "keymgrd has %u connections, no more are accepted",
			server->count);
	if (same >= SERVER_CONNECTIONS_PER_USER && peer->uid != geteuid())
		return err_set(SECPOOL_E_LIMIT,
			"user %u has %u connections to keymgrd, no more are accepted", peer->uid,
			same);
	return SECPOOL_OK;
}

static void add_connection(struct server *server, int fd)
{
	struct server_connection *connection = calloc(1, sizeof *connection);
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = connection};
	enum secpool_error error = SECPOOL_E_NO_MEMORY;

	if (!connection)
		goto out;
	*connection = (struct server_connection){.daemon = server->daemon, .fd = -1};
	connection->accepted_ns = process_boot_ns();
	error = sock_peer(fd, &connection->peer);
	if (!error)
		error = check_limits(server, &connection->peer);
	if (!error)
		error = turns_join(server->turns, connection, connection->peer.uid);
	if (!error && epoll_ctl(server->ready, EPOLL_CTL_ADD, fd, &event) != 0)
		error = os_error("keymgrd can't watch one more connection");
	if (error)
		goto out;
	connection->fd = fd;
	connection->armed = EPOLLIN;
	connection->next = server->first;
	if (server->first)
		server->first->previous = connection;
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
	if (connection)
		turns_leave(server->turns, connection);
	free(connection);
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *arg)
{
	struct server *server = arg;
	enum secpool_error error = SECPOOL_OK;

	(void)source;
	(void)events;
	for (int i = 0; i < ACCEPTS && !error; i++) {
		int fd = -1;

		error = sock_accept(listener, &fd);
		if (!error)
			add_connection(server, fd);
	}
	if (error && error != SECPOOL_E_NO_EVENT) {
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
		.ready = epoll_create1(EPOLL_CLOEXEC),
		.refused = {.period_ns = CLOCK_NS_PER_S, .burst = 10}};
	if (server->ready < 0 ||
		sd_event_add_io(daemon->loop, &server->ready_source, server->ready, EPOLLIN,
			on_ready, server) < 0 ||
		sd_event_add_io(daemon->loop, &server->accept_source, listener, EPOLLIN, on_accept,
			server) < 0 ||
		sd_event_source_set_priority(server->accept_source, TURNS_PRIORITY) < 0 ||
		sd_event_add_defer(daemon->loop, &server->reap_source, on_reap, server) < 0 ||
		patience_new(daemon, &server->patience) != SECPOOL_OK ||
		turns_new(daemon, take_message, &server->turns) != SECPOOL_OK) {
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

		unlink_connection(server, connection);
		free_connection(connection);
	}
	turns_free(server->turns);
	sd_event_source_disable_unref(server->ready_source);
	os_close(&server->ready);
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
