/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy/model.h"

/* The user that the policy is loaded under. */
#define SELF "%self"

/* A number from "0" to the largest id; (uid_t)-1 means "none" to the kernel and is refused. */
static bool read_id(const char *text, uint32_t *ret_id)
{
	char *end;
	unsigned long long value;

	if (text[0] < '0' || text[0] > '9')
		return false;
	value = strtoull(text, &end, 10);
	if (*end || value >= UINT32_MAX)
		return false;
	*ret_id = (uint32_t)value;
	return true;
}

static enum secpool_error add_id(uint32_t **ids, size_t *count, uint32_t id)
{
	uint32_t *more = realloc(*ids, (*count + 1) * sizeof *more);

	if (!more)
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for the policy's users");
	more[(*count)++] = id;
	*ids = more;
	return SECPOOL_OK;
}

static bool find_user(const char *name, uint32_t *ret_uid)
{
	struct passwd entry, *found = NULL;
	char buffer[16384];

	if (strcmp(name, SELF) == 0) {
		*ret_uid = (uint32_t)geteuid();
		return true;
	}
	if (read_id(name, ret_uid))
		return true;
	if (getpwnam_r(name, &entry, buffer, sizeof buffer, &found) != 0 || !found)
		return false;
	*ret_uid = (uint32_t)found->pw_uid;
	return true;
}

/* Adds the group, and the users that the group database lists as its members. */
static enum secpool_error add_group(struct model_tenant *tenant, const char *name, bool *ret_known)
{
	enum secpool_error error = SECPOOL_OK;
	struct group entry, *found = NULL;
	size_t bytes = 16384;
	char *buffer = NULL;
	uint32_t id;
	bool number = read_id(name, &id);
	int result;

	do { /* a group may have any number of members */
		free(buffer);
		bytes *= 2;
		buffer = malloc(bytes);
		if (!buffer)
			return err_set(SECPOOL_E_NO_MEMORY, "no memory for group %s", name);
		result = number ? getgrgid_r(id, &entry, buffer, bytes, &found)
				: getgrnam_r(name, &entry, buffer, bytes, &found);
	} while (result == ERANGE && bytes < 1 << 24);
	*ret_known = number || found;
	if (*ret_known)
		error = add_id(
			&tenant->gids, &tenant->gid_count, found ? (uint32_t)found->gr_gid : id);
	for (char **member = found ? found->gr_mem : NULL; !error && member && *member; member++) {
		uint32_t uid;

		if (find_user(*member, &uid))
			error = add_id(&tenant->uids, &tenant->uid_count, uid);
	}
	free(buffer);
	return error;
}

/* "root, alice, @staff" */
static enum secpool_error write_text(const struct schema_tenant *from, struct model_tenant *tenant)
{
	size_t bytes;
	FILE *out = open_memstream(&tenant->users_text, &bytes);

	if (!out)
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for the policy's users");
	for (unsigned i = 0; i < from->users_count; i++)
		fprintf(out, "%s%s", i ? ", " : "", from->users[i]);
	for (unsigned i = 0; i < from->groups_count; i++)
		fprintf(out, "%s@%s", i || from->users_count ? ", " : "", from->groups[i]);
	if (fclose(out) != 0)
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for the policy's users");
	return SECPOOL_OK;
}

enum secpool_error users_build(const struct schema_tenant *from, size_t index,
	const struct lines *lines, const char *name, struct model_tenant *tenant)
{
	enum secpool_error error = SECPOOL_OK;
	char path[64];

	for (unsigned i = 0; i < from->users_count && !error; i++) {
		uint32_t uid;

		snprintf(path, sizeof path, "tenants[%zu].users[%u]", index, i);
		if (find_user(from->users[i], &uid))
			error = add_id(&tenant->uids, &tenant->uid_count, uid);
		else
			error = err_set(SECPOOL_E_POLICY,
				"%s:%u: user '%.63s' is not known: expected a user's name, a "
				"number or %s",
				name, lines_of(lines, path), from->users[i], SELF);
	}
	tenant->uids_named = tenant->uid_count;
	for (unsigned i = 0; i < from->groups_count && !error; i++) {
		bool known = false;

		snprintf(path, sizeof path, "tenants[%zu].groups[%u]", index, i);
		error = add_group(tenant, from->groups[i], &known);
		if (!error && !known)
			error = err_set(SECPOOL_E_POLICY,
				"%s:%u: group '%.63s' is not known: expected a group's name or a "
				"number",
				name, lines_of(lines, path), from->groups[i]);
	}
	snprintf(path, sizeof path, "tenants[%zu]", index);
	if (!error && tenant->uid_count == 0 && tenant->gid_count == 0)
		error = err_set(SECPOOL_E_POLICY,
			"%s:%u: nobody may be tenant '%s': expected users or groups", name,
			lines_of(lines, path), tenant->name);
	if (!error)
		error = write_text(from, tenant);
	return error;
}
