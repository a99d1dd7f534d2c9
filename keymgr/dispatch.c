/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/dispatch.h"

#include <unistd.h>

#include "keymgr/anchor.h"
#include "keymgr/auditlog.h"
#include "keymgr/creates.h"
#include "keymgr/devclaims.h"
#include "keymgr/drain.h"
#include "keymgr/events.h"
#include "keymgr/handlers.h"
#include "keymgr/hotplug.h"
#include "keymgr/lists.h"
#include "keymgr/receipts.h"
#include "keymgr/reports.h"
#include "keymgr/rotate.h"
#include "keymgr/seals.h"
#include "keymgr/session.h"
#include "lib/base/log.h"

typedef enum secpool_error handler(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra);

/* Bits of the table's sets. */
enum {
	CLIENT = 1u << MSG_ROLE_CLIENT,
	ADMIN = 1u << MSG_ROLE_ADMIN,
	HOTPLUG = 1u << MSG_ROLE_HOTPLUG,
	ANYONE = 1u, /* before the role is known */
	NEW = 1u << SERVER_NEW,
	READY = 1u << SERVER_READY,
	SESSION = 1u << SERVER_SESSION,
};

static enum secpool_error handle_hello(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct msg answer = {.type = MSG_HELLO, .number = msg->number};
	uint32_t role = msg->u.hello.role;

	(void)extra;
	if (msg->u.hello.version != MSG_VERSION)
		return err_set(SECPOOL_E_PROTOCOL,
			"keymgrd speaks version %u, the peer %u: install the same version of both",
			(unsigned)MSG_VERSION, msg->u.hello.version);
	if (role != MSG_ROLE_CLIENT && role != MSG_ROLE_ADMIN && role != MSG_ROLE_HOTPLUG)
		return err_set(SECPOOL_E_PROTOCOL, "there is no role %u", role);
	if (role != MSG_ROLE_CLIENT && connection->peer.uid != 0 &&
		connection->peer.uid != geteuid()) {
		server_reply(connection, msg->number,
			err_set(SECPOOL_E_DENIED, "this is for user %u or root, not for user %u",
				geteuid(), connection->peer.uid));
		server_close(connection);
		return SECPOOL_OK;
	}
	if (role != MSG_ROLE_CLIENT) {
		enum secpool_error error = server_is_staff(connection);

		if (error)
			return error;
	}
	connection->role = role;
	connection->state = SERVER_READY;
	answer.u.hello.version = MSG_VERSION;
	answer.u.hello.role = role;
	server_send(connection, &answer, -1);
	if (role == MSG_ROLE_HOTPLUG)
		hotplug_began(connection);
	return SECPOOL_OK;
}

static enum secpool_error handle_list(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_list *list = &msg->u.list;
	bool follow = list->what == MSG_LIST_EVENTS && (list->after & MSG_FOLLOW);

	(void)extra;
	if (connection->list.active || connection->list.following)
		return err_set(SECPOOL_E_BUSY, "a list is under way on this connection");
	if (!lists_known(list->what))
		return err_set(SECPOOL_E_UNSUPPORTED, "keymgrd has no list %u", list->what);
	connection->list = (struct server_list){.active = true,
		.following = follow,
		.number = msg->number,
		.what = list->what,
		.after = list->after & ~MSG_FOLLOW};
	return SECPOOL_OK;
}

/* one_way: nobody waits for an answer, a failure is only recorded */
static const struct row {
	uint32_t type;
	unsigned roles, states;
	bool one_way;
	handler *handle;
} table[] = {
	{MSG_HELLO, ANYONE, NEW, false, handle_hello},
	{MSG_SESSION_OPEN, CLIENT, READY, false, session_handle_open},
	{MSG_SESSION_CLOSE, CLIENT, SESSION, true, session_handle_close},
	{MSG_REGION_CREATE, CLIENT, SESSION, false, creates_handle},
	{MSG_EXTENTS_GET, CLIENT, SESSION, false, handlers_extents},
	{MSG_REGION_REPLACE, CLIENT, SESSION, false, handlers_replace},
	{MSG_REGION_FILL, CLIENT, SESSION, false, handlers_fill},
	{MSG_REGION_MOVE, CLIENT, SESSION, false, drain_handle_move},
	{MSG_REGION_MOVED, CLIENT, SESSION, false, drain_handle_moved},
	{MSG_REGION_ROTATE, CLIENT, SESSION, false, rotate_handle_begin},
	{MSG_REGION_ROTATED, CLIENT, SESSION, false, rotate_handle_end},
	{MSG_REGION_SEAL, CLIENT, SESSION, false, seals_handle_seal},
	{MSG_REGION_GRANT, CLIENT, SESSION, false, seals_handle_grant},
	{MSG_REGION_ATTACH, CLIENT, SESSION, false, seals_handle_attach},
	{MSG_REGION_RELEASE, CLIENT, SESSION, false, handlers_release},
	{MSG_REGION_RESUME, CLIENT, SESSION, false, handlers_resume},
	{MSG_DEVICE_REPORT, CLIENT, SESSION, true, reports_device},
	{MSG_REGION_LOST, CLIENT, SESSION, true, reports_lost},
	{MSG_REGION_PROGRESS, CLIENT, SESSION, true, session_handle_progress},
	{MSG_LIST, ADMIN, READY, false, handle_list},
	{MSG_TENANT_ROTATE, ADMIN, READY, false, rotate_handle_tenant},
	{MSG_KEYSTORE_ANCHOR, ADMIN, READY, false, anchor_handle_now},
	{MSG_RECEIPT_GET, ADMIN, READY, false, receipts_handle_get},
	{MSG_DEVICE_ENROL, ADMIN, READY, false, devclaims_handle_enrol},
	{MSG_ATTEST_BEGIN, HOTPLUG, READY, false, hotplug_handle_begin},
	{MSG_ATTEST_EVIDENCE, HOTPLUG, READY, false, hotplug_handle_evidence},
	{MSG_DEVICE_STATE, HOTPLUG, READY, true, hotplug_handle_state},
	{MSG_DEVICE_SCRUB, HOTPLUG, READY, false, drain_handle_scrub},
};

static const struct row *find_row(uint32_t type)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].type == type)
			return &table[i];
	return NULL;
}

enum secpool_error dispatch_allowed(uint32_t type, enum server_state state, uint32_t role)
{
	const struct row *row = find_row(type);
	unsigned role_bit = state == SERVER_NEW ? ANYONE : role < 32 ? 1u << role : 0;

	if (!row)
		return err_set(
			SECPOOL_E_PROTOCOL, "%s is nothing that keymgrd is asked", msg_name(type));
	if (state == SERVER_NEW && !(row->states & NEW))
		return err_set(SECPOOL_E_PROTOCOL, "%s came before HELLO", msg_name(type));
	if (!(row->states & (1u << state)))
		return err_set(SECPOOL_E_PROTOCOL, "%s is not allowed %s", msg_name(type),
			state == SERVER_READY ? "without a session" : "now");
	if (!(row->roles & role_bit))
		return err_set(
			SECPOOL_E_PROTOCOL, "%s is not allowed in this role", msg_name(type));
	return SECPOOL_OK;
}

static void record_refusal(const struct server_connection *connection, enum secpool_error error)
{
	events_refused(connection->daemon, &connection->peer, error);
	auditlog_refused(connection->daemon, &connection->peer, error);
}

void dispatch_refuse(
	struct server_connection *connection, uint32_t number, enum secpool_error error)
{
	server_reply(connection, number, error);
	record_refusal(connection, error);
}

void dispatch_message(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	enum secpool_error error;
	const struct row *row;

	err_clear();
	error = dispatch_allowed(msg->type, connection->state, connection->role);
	if (error) {
		dispatch_refuse(connection, msg->number, error);
		server_close(connection);
		return;
	}
	row = find_row(msg->type);
	error = row->handle(connection, msg, extra);
	if (!error)
		return;
	if (!row->one_way || error == SECPOOL_E_PROTOCOL)
		dispatch_refuse(connection, msg->number, error);
	else
		record_refusal(connection, error);
	if (error == SECPOOL_E_PROTOCOL)
		server_close(connection);
}

void dispatch_ended(struct server_connection *connection)
{
	if (connection->role == MSG_ROLE_HOTPLUG)
		hotplug_ended(connection);
	session_end(connection);
}
