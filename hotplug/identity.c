/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/identity.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/os.h"
#include "lib/wire/msg.h"

/* Nesting that is followed; an identity is flat. */
enum { JSON_DEPTH = 4 };

/* The alphabet of names that travel to keymgrd, which refuses any other. */
static bool is_word(const char *text)
{
	return text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				 "0123456789_.-")] == '\0';
}

bool identity_id_allowed(const char *id)
{
	size_t length = strnlen(id, IDENTITY_ID_BYTES);

	return length > 0 && length < IDENTITY_ID_BYTES && id[0] != '.' && id[0] != '-' &&
	       is_word(id);
}

static enum secpool_error find(struct json_object *object, const char *name, const char *member,
	enum json_type type, struct json_object **ret_value)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, member, &value))
		return err_set(SECPOOL_E_INVALID, "%s: \"%s\" is missing", name, member);
	if (!json_object_is_type(value, type))
		return err_set(SECPOOL_E_INVALID, "%s: \"%s\" must be a %s", name, member,
			type == json_type_int ? "whole number" : "text");
	*ret_value = value;
	return SECPOOL_OK;
}

static enum secpool_error take_text(struct json_object *object, const char *name,
	const char *member, char *text, size_t text_bytes)
{
	struct json_object *value;
	enum secpool_error error = find(object, name, member, json_type_string, &value);
	const char *from;
	size_t length;

	if (error)
		return error;
	from = json_object_get_string(value);
	length = (size_t)json_object_get_string_len(value);
	if (length == 0 || length >= text_bytes)
		return err_set(SECPOOL_E_INVALID, "%s: \"%s\" must have 1 to %zu characters", name,
			member, text_bytes - 1);
	for (size_t i = 0; i < length; i++)
		if (from[i] <= ' ' || from[i] > '~') /* a NUL inside, too */
			return err_set(SECPOOL_E_INVALID,
				"%s: \"%s\" must be printable ASCII without blanks", name, member);
	memset(text, 0, text_bytes);
	memcpy(text, from, length);
	return SECPOOL_OK;
}

static enum secpool_error take_capacity(
	struct json_object *object, const char *name, uint64_t *ret_bytes)
{
	struct json_object *value;
	enum secpool_error error = find(object, name, "bytes", json_type_int, &value);
	int64_t bytes;

	if (error)
		return error;
	bytes = json_object_get_int64(value); /* beyond its range: the nearest, which is refused */
	if (bytes <= 0 || (uint64_t)bytes > IDENTITY_CAPACITY_BYTES_MOST ||
		bytes % IDENTITY_UNIT_BYTES != 0)
		return err_set(SECPOOL_E_INVALID,
			"%s: \"bytes\" must be a multiple of %d, above 0 and at most %llu", name,
			IDENTITY_UNIT_BYTES, IDENTITY_CAPACITY_BYTES_MOST);
	*ret_bytes = (uint64_t)bytes;
	return SECPOOL_OK;
}

/* Not there: secpool-vtpm. */
static enum secpool_error take_tpm(
	struct json_object *object, const char *name, enum identity_tpm *ret_tpm)
{
	char text[IDENTITY_TEXT_BYTES];
	enum secpool_error error;

	*ret_tpm = IDENTITY_TPM_SECPOOL;
	if (!json_object_object_get_ex(object, "tpm", NULL))
		return SECPOOL_OK;
	error = take_text(object, name, "tpm", text, sizeof text);
	if (error)
		return error;
	if (strcmp(text, "swtpm") == 0)
		*ret_tpm = IDENTITY_TPM_SWTPM;
	else if (strcmp(text, "secpool-vtpm") != 0)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"%s: \"tpm\" must be \"secpool-vtpm\" or \"swtpm\"", name);
	return SECPOOL_OK;
}

/* It may be left out. */
static enum secpool_error take_latency(
	struct json_object *object, const char *name, uint64_t *ret_latency_ns)
{
	struct json_object *value;
	enum secpool_error error;
	int64_t ns;

	if (!json_object_object_get_ex(object, "latency_ns", NULL))
		return SECPOOL_OK;
	error = find(object, name, "latency_ns", json_type_int, &value);
	if (error)
		return error;
	ns = json_object_get_int64(value);
	if (ns <= 0 || ns > IDENTITY_LATENCY_NS_MOST)
		return err_set(SECPOOL_E_INVALID, "%s: \"latency_ns\" must be 1 to %d", name,
			IDENTITY_LATENCY_NS_MOST);
	*ret_latency_ns = (uint64_t)ns;
	return SECPOOL_OK;
}

static enum secpool_error take_all(
	struct json_object *object, const char *name, const char *id, struct identity *identity)
{
	char kind[IDENTITY_TEXT_BYTES];
	enum secpool_error error;

	error = take_text(object, name, "kind", kind, sizeof kind);
	if (!error && !msg_device_kind_read(kind, &identity->kind))
		error = err_set(SECPOOL_E_UNSUPPORTED,
			"%s: devices of kind \"%s\" are not available, only \"emulated\" and "
			"\"cxl\"",
			name, kind);
	if (!error)
		error = take_text(object, name, "id", identity->id, sizeof identity->id);
	if (!error && (!identity_id_allowed(identity->id) || strcmp(identity->id, id) != 0))
		error = err_set(SECPOOL_E_INVALID,
			"%s: \"id\" must be the folder's name, \"%s\", of letters, digits, _ . and "
			"-",
			name, id);
	if (!error)
		error = take_text(
			object, name, "serial", identity->serial, sizeof identity->serial);
	if (!error)
		error = take_text(
			object, name, "firmware", identity->firmware, sizeof identity->firmware);
	if (!error)
		error = take_text(
			object, name, "domain", identity->domain, sizeof identity->domain);
	if (!error && !is_word(identity->domain))
		error = err_set(SECPOOL_E_INVALID,
			"%s: \"domain\" must be of letters, digits, _ . and -", name);
	if (!error)
		error = take_capacity(object, name, &identity->bytes);
	if (!error)
		error = take_tpm(object, name, &identity->tpm);
	if (!error)
		error = take_latency(object, name, &identity->latency_ns);
	return error;
}

enum secpool_error identity_parse(const char *text, size_t count, const char *name, const char *id,
	struct identity *ret_identity)
{
	struct json_tokener *tokener = NULL;
	struct json_object *object = NULL;
	struct identity identity = {.bytes = 0};
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (count > IDENTITY_FILE_BYTES_MOST)
		return err_set(SECPOOL_E_INVALID, "%s is longer than %d bytes", name,
			IDENTITY_FILE_BYTES_MOST);
	tokener = json_tokener_new_ex(JSON_DEPTH);
	if (!tokener)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", name);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int)count);
	if (!object || json_tokener_get_error(tokener) != json_tokener_success)
		error = err_set(SECPOOL_E_INVALID, "%s is not JSON: %s at byte %zu", name,
			json_tokener_error_desc(json_tokener_get_error(tokener)),
			json_tokener_get_parse_end(tokener));
	else if (strspn(text + json_tokener_get_parse_end(tokener), " \t\r\n") !=
		 count - json_tokener_get_parse_end(tokener))
		error = err_set(SECPOOL_E_INVALID, "%s has something after its end", name);
	else if (!json_object_is_type(object, json_type_object))
		error = err_set(SECPOOL_E_INVALID, "%s must be a JSON object", name);
	else
		error = take_all(object, name, id, &identity);
	if (!error)
		*ret_identity = identity;
	json_object_put(object);
	json_tokener_free(tokener);
	return error;
}

enum secpool_error identity_load(const char *folder, const char *id, struct identity *ret_identity)
{
	char path[PATH_MAX];
	enum secpool_error error;
	struct stat status;
	char *text = NULL;
	size_t count;
	int fd;

	if (snprintf(path, sizeof path, "%s/identity.json", folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	/* not blocking: a pipe of this name must not stop the daemon */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path);
	if (fstat(fd, &status) != 0)
		error = os_error("stat %s", path);
	else if (!S_ISREG(status.st_mode))
		error = err_set(SECPOOL_E_INVALID, "%s must be a regular file", path);
	else
		error = os_read_fd(fd, path, IDENTITY_FILE_BYTES_MOST, &text, &count);
	os_close(&fd);
	if (!error)
		error = identity_parse(text, count, path, id, ret_identity);
	free(text);
	return error;
}

void identity_measure(const struct identity *identity, struct identity_measured *ret_measured)
{
	snprintf(ret_measured->firmware, sizeof ret_measured->firmware, "firmware:%s",
		identity->firmware);
	snprintf(ret_measured->device, sizeof ret_measured->device, "device:%s:%llu:%s",
		identity->id, (unsigned long long)identity->bytes, identity->serial);
}

enum secpool_error identity_save(const char *folder, const struct identity *identity)
{
	struct json_object *object = json_object_new_object();
	enum secpool_error error = SECPOOL_OK;
	char path[PATH_MAX];
	const char *text;

	if (!object)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", folder);
	if (snprintf(path, sizeof path, "%s/identity.json", folder) >= (int)sizeof path)
		error = err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	json_object_object_add(object, "id", json_object_new_string(identity->id));
	json_object_object_add(object, "serial", json_object_new_string(identity->serial));
	json_object_object_add(object, "bytes", json_object_new_uint64(identity->bytes));
	json_object_object_add(object, "firmware", json_object_new_string(identity->firmware));
	json_object_object_add(object, "domain", json_object_new_string(identity->domain));
	json_object_object_add(
		object, "kind", json_object_new_string(msg_device_kind_name(identity->kind)));
	if (identity->latency_ns)
		json_object_object_add(
			object, "latency_ns", json_object_new_uint64(identity->latency_ns));
	if (identity->tpm == IDENTITY_TPM_SWTPM)
		json_object_object_add(object, "tpm", json_object_new_string("swtpm"));
	text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY);
	if (!error && !text)
		error = err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", path);
	if (!error)
		error = os_write_file_durable(path, text, strlen(text), 0600);
	json_object_put(object);
	return error;
}
