/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/keyclient.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

void keyclient_init(struct keyclient *client, bool read_only)
{
	*client = (struct keyclient){.fd = -1, .read_only = read_only};
	client->kept_end = &client->kept;
}

static enum secpool_error keep(struct keyclient *client, struct msg *msg, struct sock_extra *extra)
{
	struct keyclient_message *message = malloc(sizeof *message);

	if (!message) {
		sock_close_fds(extra);
		return os_error("message from keymgrd");
	}
	*message = (struct keyclient_message){.msg = *msg, .extra = *extra};
	*client->kept_end = message;
	client->kept_end = &message->next;
	return SECPOOL_OK;
}

/* Unlinks the message at *at and gives its parts to the caller. */
static void take(struct keyclient *client, struct keyclient_message **at, struct msg *ret_msg,
	struct sock_extra *ret_extra)
{
	struct keyclient_message *message = *at;

	*at = message->next;
	if (client->kept_end == &message->next)
		client->kept_end = at;
	*ret_msg = message->msg;
	*ret_extra = message->extra;
	free(message);
}

void keyclient_close(struct keyclient *client)
{
	while (client->kept) {
		struct sock_extra extra;
		struct msg msg;
		take(client, &client->kept, &msg, &extra);
		sock_close_fds(&extra);
	}
	os_close(&client->fd);
}

/* fd: goes with it; -1: none */
static enum secpool_error send_with(
	struct keyclient *client, struct msg *request, int fd, uint32_t *ret_number)
{
	enum secpool_error error;

	if (client->fd < 0)
		return err_set(SECPOOL_E_DAEMON_GONE, "keymgrd can't be reached");
	if (++client->last_number == 0)
		client->last_number = 1;
	request->number = client->last_number;
	error = sock_send(
		client->fd, request, &fd, fd >= 0 ? 1 : 0, clock_now_ns() + KEYCLIENT_ANSWER_NS);
	if (!error && ret_number)
		*ret_number = request->number;
	return error;
}

enum secpool_error keyclient_send(
	struct keyclient *client, struct msg *request, uint32_t *ret_number)
{
	return send_with(client, request, -1, ret_number);
}

/* The answer to a request that failed: its error, with the daemon's own words. */
static enum secpool_error error_of(const struct msg *answer, uint32_t want)
{
	enum secpool_error error;

	if (answer->type == want && want != MSG_REPLY)
		return SECPOOL_OK;
	if (answer->type != MSG_REPLY)
		return err_set(
			SECPOOL_E_PROTOCOL, "keymgrd answered with %s", msg_name(answer->type));
	error = err_from_number(answer->u.reply.error);
	if (error)
		return err_set(error, "%s", answer->u.reply.detail);
	if (want != MSG_REPLY)
		return err_set(SECPOOL_E_PROTOCOL, "keymgrd answered without a result");
	return SECPOOL_OK;
}

enum secpool_error keyclient_exchange(struct keyclient *client, struct msg *request, int fd,
	uint32_t want, struct msg *ret_answer, int *ret_fd)
{
	uint64_t deadline = clock_now_ns() + KEYCLIENT_ANSWER_NS;
	struct sock_extra extra;
	struct msg answer;
	uint32_t number;
	enum secpool_error error = send_with(client, request, fd, &number);

	while (!error) {
		error = sock_receive(client->fd, &answer, &extra, deadline);
		if (error)
			break;
		if (answer.number == number) {
			error = error_of(&answer, want);
			if (!error && ret_answer)
				*ret_answer = answer;
			if (!error && ret_fd)
				*ret_fd = sock_take_fd(&extra, 0);
			sock_close_fds(&extra);
			return error;
		}
		error = keep(client, &answer, &extra);
	}
	os_close(&client->fd); /* half an exchange can't be gone on with */
	return error;
}

enum secpool_error keyclient_call(
	struct keyclient *client, struct msg *request, uint32_t want, struct msg *ret_answer)
{
	return keyclient_exchange(client, request, -1, want, ret_answer, NULL);
}

enum secpool_error keyclient_next(
	struct keyclient *client, struct msg *ret_msg, struct sock_extra *ret_extra)
{
	enum secpool_error error;

	if (client->kept) {
		take(client, &client->kept, ret_msg, ret_extra);
		return SECPOOL_OK;
	}
	if (client->fd < 0)
		return SECPOOL_E_DAEMON_GONE;
	error = sock_receive(client->fd, ret_msg, ret_extra, 0);
	if (error && error != SECPOOL_E_NO_EVENT) {
		os_close(&client->fd);
		error = SECPOOL_E_DAEMON_GONE;
	}
	return error;
}

enum secpool_error keyclient_take_key(
	struct keyclient *client, uint64_t region, uint64_t epoch, int *ret_fd)
{
	for (struct keyclient_message **at = &client->kept; *at; at = &(*at)->next) {
		struct sock_extra extra;
		struct msg msg;
		enum secpool_error error = SECPOOL_OK;
		if ((*at)->msg.type != MSG_REGION_KEY || (*at)->msg.u.region_key.region != region ||
			(*at)->msg.u.region_key.epoch != epoch)
			continue;
		take(client, at, &msg, &extra);
		/* DESIGN.md section 3: clients accept keys only with the enclave's own credentials */
		if (!extra.has_sender || extra.sender.pid != client->enclave.pid ||
			extra.sender.uid != client->enclave.uid)
			error = err_set(SECPOOL_E_PROTOCOL,
				"a key came from process %d, which is not the enclave",
				extra.sender.pid);
		else if (extra.fd_count != 1)
			error = err_set(SECPOOL_E_PROTOCOL, "a key came without its descriptor");
		else
			*ret_fd = sock_take_fd(&extra, 0);
		sock_close_fds(&extra);
		return error;
	}
	return err_set(SECPOOL_E_PROTOCOL, "keymgrd sent no key for region %llu",
		(unsigned long long)region);
}

static enum secpool_error open_session(
	struct keyclient *client, const char *tenant, uint64_t local_bytes, int *ret_faultfd)
{
	struct msg request = {.type = MSG_SESSION_OPEN}, answer;
	struct sock_extra extra;
	enum secpool_error error;

	MSG_SET(request.u.session_open.tenant, tenant);
	request.u.session_open.local_bytes = local_bytes;
	request.u.session_open.read_only = client->read_only;
	error = keyclient_send(client, &request, NULL);
	if (!error)
		error = sock_receive(
			client->fd, &answer, &extra, clock_now_ns() + KEYCLIENT_ANSWER_NS);
	if (error)
		return error;
	error = error_of(&answer, MSG_SESSION_OPENED);
	client->refused = error == SECPOOL_E_UNKNOWN_TENANT || error == SECPOOL_E_DENIED;
	if (!error) {
		client->session = answer.u.session_opened;
		*ret_faultfd = sock_take_fd(&extra, 0);
	}
	sock_close_fds(&extra);
	return error;
}

enum secpool_error keyclient_open(struct keyclient *client, const char *socket_path,
	const char *tenant, uint64_t local_bytes, int *ret_faultfd)
{
	enum secpool_error error;

	client->refused = false;
	error = sock_connect_as(socket_path, MSG_ROLE_CLIENT, &client->fd);
	if (!error)
		error = sock_want_credentials(client->fd);
	if (!error)
		error = sock_peer(client->fd, &client->enclave);
	/* processes of another pid namespace all have number 0: the enclave could not be told from others */
	if (!error && client->enclave.pid <= 0)
		error = err_set(SECPOOL_E_DENIED,
			"the process that serves %s can't be seen from this pid namespace",
			socket_path);
	/* somebody else's daemon can't be given this tenant's data */
	if (!error && client->enclave.uid != 0 && client->enclave.uid != geteuid())
		error = err_set(SECPOOL_E_DENIED,
			"%s is served by user %u, neither root nor this user", socket_path,
			client->enclave.uid);
	if (!error)
		error = open_session(client, tenant, local_bytes, ret_faultfd);
	if (error)
		keyclient_close(client);
	return error;
}
