/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/msg.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/buf.h"

/* "SP", the mark of every message; then type 16, number 32, body length 32 */
enum { HEADER_MAGIC = 0x5053, HEADER_BYTES = 12 };

enum field_kind { FIELD_U32, FIELD_U64, FIELD_TEXT, FIELD_BYTES, FIELD_U64S };

struct field {
	enum field_kind kind;
	size_t offset; /* in the message's struct */
	size_t count;  /* bytes of a text or of bytes; numbers of a list; else 1 */
};

struct layout {
	const char *name;
	const struct field *fields;
	size_t field_count;
};

#define FIELD(k, f, n) {.kind = (k), .offset = offsetof(message, f), .count = (n)},
#define U32(f)	       FIELD(FIELD_U32, f, 1)
#define U64(f)	       FIELD(FIELD_U64, f, 1)
#define TEXT(f, n)     FIELD(FIELD_TEXT, f, n)
#define BYTES(f, n)    FIELD(FIELD_BYTES, f, n)
#define U64S(f, n)     FIELD(FIELD_U64S, f, n)
#define MESSAGE(number, NAME, name, list)                                                          \
	static const struct layout *layout_##name(void)                                            \
	{                                                                                          \
		typedef struct msg_##name message;                                                 \
		static const struct field fields[] = {list};                                       \
		static const struct layout layout = {                                              \
			#NAME, fields, sizeof fields / sizeof *fields};                            \
		return &layout;                                                                    \
	}
#include "lib/wire/msg.def"
#undef MESSAGE

static const struct layout *find_layout(uint32_t type)
{
	switch (type) {
#define MESSAGE(number, NAME, name, list)                                                          \
	case number:                                                                               \
		return layout_##name();
#include "lib/wire/msg.def"
#undef MESSAGE
	default:
		return NULL;
	}
}

const char *msg_name(uint32_t type)
{
	const struct layout *layout = find_layout(type);

	return layout ? layout->name : "?";
}

static void put_field(struct buf_writer *w, const struct field *field, const uint8_t *body)
{
	const uint8_t *at = body + field->offset;

	switch (field->kind) {
	case FIELD_U32:
		buf_put_number(w, *(const uint32_t *)(const void *)at, 4);
		break;
	case FIELD_U64:
	case FIELD_U64S:
		for (size_t i = 0; i < field->count; i++)
			buf_put_number(w, ((const uint64_t *)(const void *)at)[i], 8);
		break;
	case FIELD_TEXT:
		assert(memchr(at, '\0', field->count));
		buf_put(w, at, field->count);
		break;
	case FIELD_BYTES:
		buf_put(w, at, field->count);
		break;
	}
}

enum secpool_error msg_encode(
	const struct msg *msg, uint8_t *bytes, size_t capacity, size_t *ret_count)
{
	const struct layout *layout = find_layout(msg->type);
	struct buf_writer w = {.bytes = bytes, .capacity = capacity};
	struct buf_writer length = {.bytes = bytes + 8, .capacity = 4};

	if (!layout)
		return err_set(SECPOOL_E_INVALID, "no message has type %u", msg->type);
	buf_put_number(&w, HEADER_MAGIC, 2);
	buf_put_number(&w, msg->type, 2);
	buf_put_number(&w, msg->number, 4);
	buf_put_number(&w, 0, 4);
	for (size_t i = 0; i < layout->field_count; i++)
		put_field(&w, &layout->fields[i], (const uint8_t *)&msg->u);
	if (w.failed)
		return err_set(SECPOOL_E_LIMIT, "message %s is too long", layout->name);
	buf_put_number(&length, w.used - HEADER_BYTES, 4);
	*ret_count = w.used;
	return SECPOOL_OK;
}

/* False when a text is not terminated, or has bytes after its end (there could be a secret there). */
static bool get_field(struct buf_reader *r, const struct field *field, uint8_t *body)
{
	uint8_t *at = body + field->offset;

	switch (field->kind) {
	case FIELD_U32:
		*(uint32_t *)(void *)at = (uint32_t)buf_get_number(r, 4);
		break;
	case FIELD_U64:
	case FIELD_U64S:
		for (size_t i = 0; i < field->count; i++)
			((uint64_t *)(void *)at)[i] = buf_get_number(r, 8);
		break;
	case FIELD_TEXT:
		buf_get(r, at, field->count);
		at = memchr(at, '\0', field->count);
		if (!at)
			return false;
		for (const uint8_t *end = body + field->offset + field->count; at < end; at++)
			if (*at)
				return false;
		break;
	case FIELD_BYTES:
		buf_get(r, at, field->count);
		break;
	}
	return true;
}

enum secpool_error msg_decode(const uint8_t *bytes, size_t count, struct msg *ret_msg)
{
	struct buf_reader r = {.bytes = bytes, .count = count};
	const struct layout *layout;
	struct msg msg;
	size_t length;

	memset(&msg, 0, sizeof msg);
	if (buf_get_number(&r, 2) != HEADER_MAGIC || r.failed)
		return err_set(
			SECPOOL_E_PROTOCOL, "a packet of %zu bytes is no secpool message", count);
	msg.type = (uint32_t)buf_get_number(&r, 2);
	msg.number = (uint32_t)buf_get_number(&r, 4);
	length = buf_get_number(&r, 4);
	layout = find_layout(msg.type);
	if (!layout)
		return err_set(SECPOOL_E_PROTOCOL, "message of unknown type %u", msg.type);
	if (r.failed || length != count - HEADER_BYTES)
		return err_set(SECPOOL_E_PROTOCOL, "message %s has a wrong length", layout->name);
	for (size_t i = 0; i < layout->field_count; i++)
		if (!get_field(&r, &layout->fields[i], (uint8_t *)&msg.u))
			return err_set(SECPOOL_E_PROTOCOL,
				"message %s has a text that does not end", layout->name);
	if (r.failed || r.used != count)
		return err_set(SECPOOL_E_PROTOCOL, "message %s has a wrong length", layout->name);
	*ret_msg = msg;
	return SECPOOL_OK;
}

void msg_set_text(char *field, size_t capacity, const char *text)
{
	size_t length = strnlen(text, capacity - 1);

	memcpy(field, text, length);
	memset(field + length, 0, capacity - length);
}

const char *msg_device_state_name(uint32_t state)
{
	static const char *const names[MSG_DEVICE_STATES] = {
		[MSG_DEVICE_ABSENT] = "absent",
		[MSG_DEVICE_DISCOVERED] = "discovered",
		[MSG_DEVICE_ATTESTING] = "attesting",
		[MSG_DEVICE_ONLINE] = "online",
		[MSG_DEVICE_DRAINING] = "draining",
		[MSG_DEVICE_OFFLINE] = "offline",
		[MSG_DEVICE_QUARANTINED] = "quarantined",
		[MSG_DEVICE_SUSPECT] = "suspect",
		[MSG_DEVICE_LOST] = "lost",
	};

	return state < MSG_DEVICE_STATES ? names[state] : "?";
}

const char *msg_cause_name(uint32_t cause)
{
	switch (cause) {
	case MSG_CAUSE_FAULT:
		return "fault";
	case MSG_CAUSE_TAG:
		return "integrity";
	case MSG_CAUSE_REMOVED:
		return "removed";
	case MSG_CAUSE_NO_SPACE:
		return "no-space";
	case MSG_CAUSE_STUCK:
		return "stuck";
	case MSG_CAUSE_SILENT:
		return "silent";
	default:
		return "?";
	}
}

const char *msg_on_loss_name(uint32_t on_loss)
{
	switch (on_loss) {
	case MSG_ON_LOSS_SIGBUS:
		return "sigbus";
	case MSG_ON_LOSS_FAILOVER:
		return "failover";
	case MSG_ON_LOSS_SIGNAL:
		return "signal";
	case MSG_ON_LOSS_KILL:
		return "kill";
	case MSG_ON_LOSS_REFILL:
		return "refill";
	default:
		return "?";
	}
}

const char *msg_device_kind_name(uint32_t kind)
{
	return kind == MSG_KIND_EMULATED ? "emulated" : kind == MSG_KIND_CXL ? "cxl" : "?";
}

bool msg_device_kind_read(const char *text, uint32_t *ret_kind)
{
	for (uint32_t kind = MSG_KIND_EMULATED; kind <= MSG_KIND_CXL; kind++) {
		if (strcmp(text, msg_device_kind_name(kind)) != 0)
			continue;
		*ret_kind = kind;
		return true;
	}
	return false;
}

uint32_t msg_on_loss_read(const char *text)
{
	for (uint32_t mode = MSG_ON_LOSS_SIGBUS; mode <= MSG_ON_LOSS_REFILL; mode++)
		if (strcmp(text, msg_on_loss_name(mode)) == 0)
			return mode;
	return 0;
}

const char *msg_redundancy_name(uint32_t data, uint32_t lanes, char text[MSG_REDUNDANCY_BYTES])
{
	if (lanes <= 1)
		snprintf(text, MSG_REDUNDANCY_BYTES, "none");
	else if (data <= 1)
		snprintf(text, MSG_REDUNDANCY_BYTES, "mirror:%u", lanes % 100);
	else
		snprintf(text, MSG_REDUNDANCY_BYTES, "ec:%u+%u", data % 100, (lanes - data) % 100);
	return text;
}

bool msg_redundancy_valid(uint32_t data, uint32_t lanes)
{
	if (data == 1)
		return lanes >= 1 && lanes <= MSG_COPIES_MAX;
	return data >= 2 && data < lanes && lanes <= MSG_LANES_MAX &&
	       lanes - data <= MSG_PARITY_MAX;
}

bool msg_redundancy_read(const char *text, uint32_t *ret_data, uint32_t *ret_lanes)
{
	char shape[MSG_REDUNDANCY_BYTES];

	for (uint32_t lanes = 1; lanes <= MSG_LANES_MAX; lanes++)
		for (uint32_t data = 1; data <= lanes; data++)
			if (msg_redundancy_valid(data, lanes) &&
				strcmp(text, msg_redundancy_name(data, lanes, shape)) == 0) {
				*ret_data = data;
				*ret_lanes = lanes;
				return true;
			}
	return false;
}

uint64_t msg_manifest_bytes(uint64_t bytes, uint64_t page_bytes)
{
	return MSG_MANIFEST_HEAD_BYTES + bytes / page_bytes * MSG_MANIFEST_PAGE_BYTES;
}

uint64_t msg_lane_bytes(uint64_t bytes, uint64_t page_bytes, uint32_t data)
{
	uint64_t pages = bytes / page_bytes;

	return (pages + data - 1) / data * page_bytes;
}

bool msg_signal_valid(uint32_t number)
{
	return number >= 1 && number < NSIG && number != SIGKILL && number != SIGSTOP &&
	       number != SIGBUS;
}
