/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/schema.h"

#include <cyaml/cyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_BYTES_MOST = 255, PATH_BYTES = 192 };

#define NEEDED_TEXT(s, m) CYAML_FIELD_STRING_PTR(#m, CYAML_FLAG_POINTER, s, m, 1, VALUE_BYTES_MOST)
#define OPTIONAL_TEXT(s, m)                                                                        \
	CYAML_FIELD_STRING_PTR(                                                                    \
		#m, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, s, m, 1, VALUE_BYTES_MOST)
#define TEXTS(s, m, flags, least, most)                                                            \
	CYAML_FIELD_SEQUENCE(#m, CYAML_FLAG_POINTER | (flags), s, m, &text_value, least, most)

static const cyaml_schema_value_t text_value = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, VALUE_BYTES_MOST)};

/* Only these words: libcyaml's own booleans take any unknown word for true. */
static const cyaml_strval_t yes_no[] = {{"false", 0}, {"true", 1}, {"no", 0}, {"yes", 1}};
static const cyaml_strval_t enrols[] = {
	{"listed", SCHEMA_LISTED}, {"first-use", SCHEMA_FIRST_USE}, {"operator", SCHEMA_OPERATOR}};

static const cyaml_strval_t drains[] = {
	{"readable", SCHEMA_READABLE}, {"redundant", SCHEMA_REDUNDANT}, {"none", SCHEMA_NONE}};

static const cyaml_strval_t recoveries[] = {{"key", SCHEMA_KEY}, {"none", SCHEMA_NO_KEY}};
static const cyaml_strval_t ciphers[] = {{"auto", SCHEMA_AUTO}, {"openssl", SCHEMA_OPENSSL}};

#define YES_NO(s, m) CYAML_FIELD_ENUM(#m, CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, s, m, yes_no, 4)

static const cyaml_schema_field_t window_fields[] = {NEEDED_TEXT(struct schema_window, base),
	NEEDED_TEXT(struct schema_window, bytes), CYAML_FIELD_END};

static const cyaml_schema_field_t allow_fields[] = {YES_NO(struct schema_allow, unlocked_memory),
	YES_NO(struct schema_allow, memfd_without_secret), YES_NO(struct schema_allow, device_dma),
	CYAML_FIELD_END};

static const cyaml_schema_field_t quota_fields[] = {NEEDED_TEXT(struct schema_quota, bytes),
	NEEDED_TEXT(struct schema_quota, regions), NEEDED_TEXT(struct schema_quota, sessions),
	NEEDED_TEXT(struct schema_quota, local_bytes), CYAML_FIELD_END};

static const cyaml_schema_field_t tenant_fields[] = {NEEDED_TEXT(struct schema_tenant, name),
	TEXTS(struct schema_tenant, users, CYAML_FLAG_OPTIONAL, 0, SCHEMA_NAMES_MOST),
	TEXTS(struct schema_tenant, groups, CYAML_FLAG_OPTIONAL, 0, SCHEMA_NAMES_MOST),
	TEXTS(struct schema_tenant, protection, CYAML_FLAG_OPTIONAL, 1, 8),
	TEXTS(struct schema_tenant, redundancy, CYAML_FLAG_OPTIONAL, 1, 64),
	TEXTS(struct schema_tenant, on_loss, CYAML_FLAG_OPTIONAL, 1, 8),
	TEXTS(struct schema_tenant, share_with, CYAML_FLAG_OPTIONAL, 0, SCHEMA_TENANTS_MOST),
	CYAML_FIELD_MAPPING("quota", 0, struct schema_tenant, quota, quota_fields),
	CYAML_FIELD_END};
static const cyaml_schema_value_t tenant_value = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct schema_tenant, tenant_fields)};

static const cyaml_schema_field_t known_fields[] = {NEEDED_TEXT(struct schema_known, id),
	NEEDED_TEXT(struct schema_known, ek), CYAML_FIELD_END};
static const cyaml_schema_value_t known_value = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct schema_known, known_fields)};

static const cyaml_schema_field_t reference_fields[] = {NEEDED_TEXT(struct schema_reference, name),
	NEEDED_TEXT(struct schema_reference, pcr), NEEDED_TEXT(struct schema_reference, sha256),
	CYAML_FIELD_END};
static const cyaml_schema_value_t reference_value = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct schema_reference, reference_fields)};
static const cyaml_schema_field_t tier_fields[] = {NEEDED_TEXT(struct schema_tier, name),
	NEEDED_TEXT(struct schema_tier, latency_ns), CYAML_FIELD_END};
static const cyaml_schema_value_t tier_value = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct schema_tier, tier_fields)};

static const cyaml_schema_field_t devices_fields[] = {
	CYAML_FIELD_ENUM("enrol", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, struct schema_devices,
		enrol, enrols, 3),
	OPTIONAL_TEXT(struct schema_devices, max_age_seconds),
	OPTIONAL_TEXT(struct schema_devices, suspect_after_ms),
	OPTIONAL_TEXT(struct schema_devices, gone_after_ms),
	OPTIONAL_TEXT(struct schema_devices, suspect_tenants),
	OPTIONAL_TEXT(struct schema_devices, suspect_faults),
	OPTIONAL_TEXT(struct schema_devices, suspect_poison),
	TEXTS(struct schema_devices, suspect_health, CYAML_FLAG_OPTIONAL, 1, 4),
	TEXTS(struct schema_devices, revoked, CYAML_FLAG_OPTIONAL, 0, SCHEMA_DEVICES_MOST),
	CYAML_FIELD_ENUM("revoke_drains", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL,
		struct schema_devices, revoke_drains, drains, 3),
	OPTIONAL_TEXT(struct schema_devices, revoke_seconds),
	TEXTS(struct schema_devices, firmware, 0, 1, SCHEMA_NAMES_MOST),
	TEXTS(struct schema_devices, pcrs, CYAML_FLAG_OPTIONAL, 1, 24),
	TEXTS(struct schema_devices, ek_ca, CYAML_FLAG_OPTIONAL, 1, SCHEMA_FILES_MOST),
	CYAML_FIELD_SEQUENCE("reference", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		struct schema_devices, reference, &reference_value, 0, SCHEMA_NAMES_MOST),
	CYAML_FIELD_SEQUENCE("known", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		struct schema_devices, known, &known_value, 0, SCHEMA_DEVICES_MOST),
	CYAML_FIELD_SEQUENCE("tiers", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		struct schema_devices, tiers, &tier_value, 1, SCHEMA_TIERS_MOST),
	CYAML_FIELD_END};

static const cyaml_schema_field_t file_fields[] = {NEEDED_TEXT(struct schema_file, version),
	CYAML_FIELD_MAPPING(
		"window", CYAML_FLAG_OPTIONAL, struct schema_file, window, window_fields),
	OPTIONAL_TEXT(struct schema_file, grace_seconds),
	OPTIONAL_TEXT(struct schema_file, session_seconds),
	OPTIONAL_TEXT(struct schema_file, rebuild_bytes_per_second),
	OPTIONAL_TEXT(struct schema_file, rebalance_bytes_per_second),
	OPTIONAL_TEXT(struct schema_file, rebalance_percent),
	OPTIONAL_TEXT(struct schema_file, patrol_bytes_per_second),
	OPTIONAL_TEXT(struct schema_file, rotate_after_seconds),
	OPTIONAL_TEXT(struct schema_file, rotate_after_bytes),
	OPTIONAL_TEXT(struct schema_file, anchor_after_seconds),
	OPTIONAL_TEXT(struct schema_file, anchor_skipped_most),
	TEXTS(struct schema_file, host_pcrs, CYAML_FLAG_OPTIONAL, 1, 24),
	CYAML_FIELD_ENUM("cipher", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, struct schema_file,
		cipher, ciphers, 2),
	CYAML_FIELD_ENUM("recovery", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, struct schema_file,
		recovery, recoveries, 2),
	CYAML_FIELD_MAPPING("allow", CYAML_FLAG_OPTIONAL, struct schema_file, allow, allow_fields),
	CYAML_FIELD_SEQUENCE("tenants", CYAML_FLAG_POINTER, struct schema_file, tenants,
		&tenant_value, 0, SCHEMA_TENANTS_MOST),
	CYAML_FIELD_MAPPING_PTR("devices", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		struct schema_file, devices, devices_fields),
	CYAML_FIELD_END};
static const cyaml_schema_value_t file_value = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct schema_file, file_fields)};

/* What libcyaml logged about an error: its first line, and the path that its backtrace spells. */
struct complaint {
	char problem[VALUE_BYTES_MOST + 1];
	char path[PATH_BYTES];
	unsigned line;	     /* of the backtrace's first entry: near, not exact */
	bool first_is_field; /* the innermost entry was a key's value */
	bool traced;
};

static void prepend(struct complaint *c, const char *part)
{
	char longer[2 * PATH_BYTES];

	snprintf(longer, sizeof longer, "%s%s", part, c->path);
	if (strlen(longer) < sizeof c->path)
		memcpy(c->path, longer, strlen(longer) + 1);
}

static void read_trace(struct complaint *c, const char *line)
{
	const char *at = strstr(line, "(line: ");
	char name[PATH_BYTES], part[PATH_BYTES + 4] = "";
	unsigned long entry;

	if (sscanf(line, " in mapping field '%100[^']'", name) == 1) {
		snprintf(part, sizeof part, ".%s", name);
		c->first_is_field |= !c->traced;
	} else if (sscanf(line, " in sequence entry '%lu'", &entry) == 1) {
		snprintf(part, sizeof part, "[%lu]", entry > 0 ? entry - 1 : 0);
	}
	if (!c->traced && at)
		c->line = (unsigned)strtoul(at + strlen("(line: "), NULL, 10);
	c->traced = true;
	prepend(c, part);
}

static void on_log(cyaml_log_t level, void *arg, const char *format, va_list args)
{
	struct complaint *c = arg;
	char line[2 * VALUE_BYTES_MOST];
	const char *at = line;

	(void)level;
	/* libcyaml's own formats, checked by its compiler */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(line, sizeof line, format, args);
#pragma GCC diagnostic pop
	line[strcspn(line, "\n")] = '\0';
	if (strncmp(at, "Load: ", 6) == 0)
		at += 6;
	if (strncmp(at, "  in ", 5) == 0)
		read_trace(c, at);
	else if (strncmp(at, "Backtrace:", 10) != 0 && !c->problem[0])
		snprintf(c->problem, sizeof c->problem, "%.*s", VALUE_BYTES_MOST, at);
}

/* The keys that the schema allows at a path, as "a, b, c". */
static void list_keys(const char *path, char *text, size_t bytes)
{
	const cyaml_schema_field_t *fields = file_fields;
	size_t used = 0;

	while (*path && fields) {
		size_t length;

		path += strspn(path, ".");
		length = strcspn(path, ".[");
		while (fields->key &&
			(strlen(fields->key) != length || strncmp(fields->key, path, length) != 0))
			fields++;
		if (!fields->key)
			break;
		if (fields->value.type == CYAML_MAPPING)
			fields = fields->value.mapping.fields;
		else if (fields->value.type == CYAML_SEQUENCE &&
			 fields->value.sequence.entry->type == CYAML_MAPPING)
			fields = fields->value.sequence.entry->mapping.fields;
		else
			fields = NULL;
		path += length;
		if (*path == '[')
			path += strcspn(path, ".");
	}
	text[0] = '\0';
	for (; fields && fields->key && used < bytes; fields++)
		used += (size_t)snprintf(
			text + used, bytes - used, "%s%s", used ? ", " : "", fields->key);
}

static const char *after(const char *text, const char *start)
{
	size_t length = strlen(start);

	return strncmp(text, start, length) == 0 ? text + length : NULL;
}

/* Says in our words, with the exact line, what libcyaml complained of. */
static enum secpool_error explain(
	struct complaint *c, cyaml_err_t code, const char *name, const struct lines *lines)
{
	const char *path = c->path[0] == '.' ? c->path + 1 : c->path, *what;
	unsigned line = c->traced ? lines_of(lines, path) : 1;
	char keys[128];

	if (code == CYAML_ERR_OOM)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory to read it", name);
	if ((what = after(c->problem, "Unexpected key: "))) {
		list_keys(path, keys, sizeof keys);
		return err_set(SECPOOL_E_POLICY,
			"%s:%u: '%.40s' is not known here: expected one of %s", name,
			lines_of_key(lines, path, what), what, keys);
	}
	if ((what = after(c->problem, "Missing required mapping field: "))) {
		char *end = strrchr(c->path, '.');

		if (c->first_is_field && end)
			*end = '\0';
		return err_set(SECPOOL_E_POLICY, "%s:%u: '%s' is missing: it is needed here", name,
			lines_of(lines, c->path[0] == '.' ? c->path + 1 : c->path), what);
	}
	if (code == CYAML_ERR_ALIAS)
		return err_set(SECPOOL_E_POLICY, "%s:%u: aliases are not allowed: expected a value",
			name, c->line);
	if ((what = after(c->problem, "Expecting "))) {
		const char *kind = after(what, "SEQUENCE")  ? "a list"
				   : after(what, "MAPPING") ? "keys with values"
							    : "one value";
		return err_set(SECPOOL_E_POLICY, "%s:%u: %s: expected %s", name, line, path, kind);
	}
	if (strcmp(path, "cipher") == 0)
		return err_set(SECPOOL_E_POLICY, "%s:%u: cipher: expected 'auto' or 'openssl'",
			name, line);
	if (strcmp(path, "recovery") == 0)
		return err_set(
			SECPOOL_E_POLICY, "%s:%u: recovery: expected 'key' or 'none'", name, line);
	if (strcmp(path, "devices.revoke_drains") == 0)
		return err_set(SECPOOL_E_POLICY,
			"%s:%u: %s: expected 'readable', 'redundant' or 'none'", name, line, path);
	if (strstr(path, "allow") || strstr(path, "enrol"))
		return err_set(SECPOOL_E_POLICY, "%s:%u: %s: expected %s", name, line, path,
			strstr(path, "enrol") ? "'listed', 'first-use' or 'operator'"
					      : "'true' or 'false'");
	return err_set(SECPOOL_E_POLICY, "%s:%u: %s: %s", name, line, path,
		c->problem[0] ? c->problem : cyaml_strerror(code));
}

static cyaml_config_t configuration(struct complaint *c)
{
	return (cyaml_config_t){
		.log_fn = on_log,
		.log_ctx = c,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
		.flags = CYAML_CFG_NO_ALIAS,
	};
}

enum secpool_error schema_load(const char *text, size_t bytes, const char *name,
	const struct lines *lines, struct schema_file **ret_file)
{
	struct complaint c = {.line = 1};
	cyaml_config_t config = configuration(&c);
	cyaml_data_t *data = NULL;
	cyaml_err_t code =
		cyaml_load_data((const uint8_t *)text, bytes, &config, &file_value, &data, NULL);

	if (code != CYAML_OK)
		return explain(&c, code, name, lines);
	if (!data)
		return err_set(SECPOOL_E_POLICY, "%s:1: is empty: expected 'version: 1'", name);
	*ret_file = data;
	return SECPOOL_OK;
}

void schema_free(struct schema_file *file)
{
	struct complaint c = {.line = 0};
	cyaml_config_t config = configuration(&c);

	if (file)
		cyaml_free(&config, &file_value, file, 0);
}
