/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "enclave/audit.h"
#include "enclave/audit_text.h"
#include "enclave/primitives.h"
#include "lib/base/os.h"

/* How a store without its audit can be used again; said to the operator, who must decide that. */
#define REMEDY "put its backup back, or move audit and audit.anchor away and start with --new-audit"

static enum secpool_error path_of(char path[PATH_MAX], const char *state_dir, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s/%s", state_dir, name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	return SECPOOL_OK;
}

/* The anchor of the last run; found is false where there is none. */
static enum secpool_error read_anchor(const struct audit *audit, const char *path,
	struct audit_anchor_facts *ret_anchor, bool *ret_found)
{
	char *text = NULL;
	size_t bytes = 0;
	enum secpool_error error = os_read_file(path, AUDIT_ANCHOR_BYTES, &text, &bytes);

	*ret_found = !error;
	if (error == SECPOOL_E_NOT_FOUND)
		return SECPOOL_OK;
	if (!error)
		error = audit_read_anchor(text, bytes, audit->signer->key, ret_anchor);
	free(text);
	return error ? err_set(SECPOOL_E_STORE, "%s: %.140s: " REMEDY, path, err_detail())
		     : SECPOOL_OK;
}

/* Reads exactly this part of the file. */
static enum secpool_error read_part(
	int fd, const char *path, uint64_t from, char *bytes, size_t count)
{
	size_t done = 0;

	while (done < count) {
		ssize_t got = pread(fd, bytes + done, count - done, (off_t)(from + done));

		if (got < 0 && os_interrupted())
			continue;
		if (got < 0)
			return os_error("read %s", path);
		if (got == 0)
			return err_set(SECPOOL_E_STORE, "%s became shorter", path);
		done += (size_t)got;
	}
	return SECPOOL_OK;
}

/* The line that ends where the anchor says is the one that it says. how: what was done with that one. */
static enum secpool_error check_anchored(
	int fd, const char *path, const struct audit_anchor_facts *anchor, const char *how)
{
	char part[AUDIT_LINE_BYTES + 1];
	size_t count = anchor->bytes < sizeof part ? (size_t)anchor->bytes : sizeof part, from;
	uint8_t digest[AUDIT_DIGEST_BYTES];
	enum secpool_error error;

	if (anchor->records == 0)
		return SECPOOL_OK;
	if (count == 0)
		return err_set(SECPOOL_E_STORE, "%s: a record of no bytes: " REMEDY, path);
	error = read_part(fd, path, anchor->bytes - count, part, count);
	if (error)
		return error;
	for (from = count - 1; from > 0 && part[from - 1] != '\n'; from--)
		;
	error = primitives_sha256(part + from, count - 1 - from, digest);
	if (!error && (part[count - 1] != '\n' ||
			      CRYPTO_memcmp(digest, anchor->head, sizeof digest) != 0))
		error = err_set(SECPOOL_E_STORE,
			"%s: record %llu is not the one that was %s: " REMEDY, path,
			(unsigned long long)anchor->records, how);
	return error;
}

/* Every record from here to the end is signed, and follows the one before it. */
static enum secpool_error follow(struct audit *audit, FILE *file, const char *path)
{
	enum secpool_error error = SECPOOL_OK;
	struct audit_line parts;
	char *line = NULL;
	size_t room = 0;
	ssize_t got;

	while (!error && (got = getline(&line, &room, file)) > 0) {
		size_t bytes = (size_t)got - 1;

		if (line[bytes] != '\n' || bytes >= AUDIT_LINE_BYTES)
			error = err_set(SECPOOL_E_STORE, "it does not end with a line end");
		if (!error)
			error = audit_check_line(line, bytes, audit->signer->key, &parts);
		if (!error && !audit_follows(&parts, audit->count + 1, audit->head))
			error = err_set(SECPOOL_E_STORE, "it does not follow the one before it");
		if (!error)
			error = primitives_sha256(line, bytes, audit->head);
		if (error) {
			error = err_set(SECPOOL_E_STORE, "%s: record %llu: %.90s: " REMEDY, path,
				(unsigned long long)audit->count + 1, err_detail());
		} else {
			audit->count++;
			audit->bytes += bytes + 1;
		}
	}
	if (!error && ferror(file))
		error = os_error("read %s", path);
	free(line);
	return error;
}

/* From the anchor to the end of the file. */
static enum secpool_error read_records(
	struct audit *audit, const char *path, const struct audit_anchor_facts *anchor)
{
	enum secpool_error error = SECPOOL_OK;
	struct stat status;
	FILE *file = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fstat(fd, &status) != 0)
		error = os_error("open %s", path);
	else if ((uint64_t)status.st_size < anchor->bytes)
		error = err_set(SECPOOL_E_STORE,
			"%s: records are missing at its end: %llu were anchored: " REMEDY, path,
			(unsigned long long)anchor->records);
	if (!error)
		error = check_anchored(fd, path, anchor, "anchored");
	if (!error && (lseek(fd, (off_t)anchor->bytes, SEEK_SET) < 0 || !(file = fdopen(fd, "r"))))
		error = os_error("read %s", path);
	if (file)
		fd = -1;
	audit->count = anchor->records;
	audit->bytes = anchor->bytes;
	memcpy(audit->head, anchor->head, sizeof audit->head);
	if (!error)
		error = follow(audit, file, path);
	if (file)
		fclose(file);
	os_close(&fd);
	return error;
}

/* Nothing yet: an anchor of no records, so that from now on a missing one is noticed. */
static enum secpool_error begin(struct audit *audit, const char *path)
{
	char text[AUDIT_ANCHOR_BYTES];
	enum secpool_error error = audit_anchor(audit, text);

	return error ? error : os_write_file_durable(path, text, strlen(text), 0600);
}

enum secpool_error audit_resume(struct audit *audit, const char *state_dir, bool fresh)
{
	struct audit_anchor_facts anchor = {.records = 0};
	char log[PATH_MAX], sealed[PATH_MAX];
	struct audit found = *audit;
	struct stat status;
	bool anchored = false, empty;
	enum secpool_error error = path_of(log, state_dir, "audit");

	if (!error)
		error = path_of(sealed, state_dir, "audit.anchor");
	if (!error)
		error = read_anchor(audit, sealed, &anchor, &anchored);
	if (error)
		return error;
	empty = stat(log, &status) != 0 || status.st_size == 0;
	if (!anchored && (!empty || !fresh))
		return err_set(SECPOOL_E_STORE, "%s is missing: " REMEDY, sealed);
	if (!anchored)
		return begin(audit, sealed);
	if (empty && anchor.records == 0)
		return SECPOOL_OK;
	error = read_records(&found, log, &anchor);
	if (!error)
		*audit = found;
	return error;
}

enum secpool_error audit_check_sealed(const struct audit *audit, const char *state_dir,
	const uint8_t head[AUDIT_DIGEST_BYTES], uint64_t count, uint64_t bytes)
{
	struct audit_anchor_facts sealed = {.records = count, .bytes = bytes};
	char path[PATH_MAX];
	enum secpool_error error = path_of(path, state_dir, "audit");
	int fd;

	if (error)
		return error;
	if (audit->count < count || audit->bytes < bytes)
		return err_set(SECPOOL_E_STORE,
			"%s has %llu records, and %llu were sealed with the key store: it was "
			"rolled back: put back the newest, or start once with --new-audit",
			path, (unsigned long long)audit->count, (unsigned long long)count);
	if (count == 0)
		return SECPOOL_OK;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return os_error("open %s", path);
	memcpy(sealed.head, head, sizeof sealed.head);
	error = check_anchored(fd, path, &sealed, "sealed with the key store");
	os_close(&fd);
	return error;
}
