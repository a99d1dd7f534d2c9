/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/emulator.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hotplug/mark.h"
#include "lib/base/clock.h"
#include "lib/base/media.h"
#include "lib/base/os.h"

/* Bytes copied at a time. */
enum { COPY_BYTES = 1 << 20 };

struct path {
	char text[PATH_MAX];
};

static enum secpool_error path_of(const char *folder, const char *name, struct path *ret_path)
{
	if (snprintf(ret_path->text, sizeof ret_path->text, "%s/%s", folder, name) >=
		(int)sizeof ret_path->text)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", folder);
	return SECPOOL_OK;
}

/* Whether there is something of this name, a link to nowhere included. */
static bool is_there(const char *folder, const char *name)
{
	struct stat status;
	struct path path;

	return path_of(folder, name, &path) == SECPOOL_OK && lstat(path.text, &status) == 0;
}

static enum secpool_error open_media(const char *folder, int *ret_fd)
{
	enum secpool_error error;
	struct stat status;
	struct path path;
	int fd;

	error = path_of(folder, "media", &path);
	if (error)
		return error;
	fd = open(path.text, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", path.text);
	if (fstat(fd, &status) != 0)
		error = os_error("stat %s", path.text);
	else if (!S_ISREG(status.st_mode))
		error = err_set(SECPOOL_E_INVALID, "%s must be a regular file", path.text);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

static enum secpool_error write_word(int fd, uint64_t bytes, size_t at, uint64_t word)
{
	/* eight aligned bytes in one page: whoever maps them sees the old ones or the new */
	if (pwrite(fd, &word, sizeof word, (off_t)(bytes + at)) != sizeof word)
		return os_error("write the media's control page");
	return SECPOOL_OK;
}

/* 0 when it can't be read: no canary, or EMUMEDIA_NORMAL. */
static uint64_t read_word(int fd, uint64_t bytes, size_t at)
{
	uint64_t word = 0;

	return pread(fd, &word, sizeof word, (off_t)(bytes + at)) == sizeof word ? word : 0;
}

/* The control page of a new incarnation: another canary than any before, and it behaves. */
static enum secpool_error write_control(int fd, uint64_t bytes)
{
	enum secpool_error error = write_word(fd, bytes, EMUMEDIA_WORD_AT, EMUMEDIA_NORMAL);
	uint64_t canary;

	do
		os_random(&canary, sizeof canary);
	while (!media_canary_allowed(canary));
	return error ? error : write_word(fd, bytes, MEDIA_CANARY_AT, canary);
}

/* A file of zeros that does not yet have its name. */
static enum secpool_error make_media(const char *folder, uint64_t bytes)
{
	enum secpool_error error;
	struct path next, path;
	int fd;

	error = path_of(folder, "media.next", &next);
	if (!error)
		error = path_of(folder, "media", &path);
	if (error)
		return error;
	unlink(next.text);
	fd = open(next.text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return os_error("create %s", next.text);
	if (ftruncate(fd, (off_t)media_bytes(true, bytes)) != 0)
		error = os_error("set the size of %s to %" PRIu64, next.text, bytes);
	else
		error = write_control(fd, bytes);
	if (!error && rename(next.text, path.text) != 0)
		error = os_error("rename %s", next.text);
	os_close(&fd);
	if (error)
		unlink(next.text);
	return error;
}

/* The daemon was ended in a silent pull: stores were swallowed, so these media are never whole again. */
static enum secpool_error end_silence(const char *folder, int fd, uint64_t bytes)
{
	enum secpool_error error;

	if (read_word(fd, bytes, EMUMEDIA_WORD_AT) != emumedia_word(EMUMEDIA_SILENT, 0))
		return SECPOOL_OK;
	error = emulator_save(folder, fd);
	emulator_cut(folder, fd);
	if (error)
		return error;
	return err_set(SECPOOL_E_DEVICE_GONE, "%s was being pulled", folder);
}

enum secpool_error emulator_open(
	const char *folder, uint64_t bytes, int *ret_media_fd, uint64_t *ret_mark)
{
	enum secpool_error error = SECPOOL_OK;
	bool foreign = false;
	uint64_t mark;
	int fd = -1;

	if (!is_there(folder, "media")) {
		if (is_there(folder, "media.pulled") || is_there(folder, "mark"))
			return err_set(SECPOOL_E_DEVICE_GONE,
				"%s has no media: bring it back with 'secpool device plug'",
				folder);
		error = make_media(folder, bytes);
	}
	if (!error)
		error = open_media(folder, &fd);
	if (error)
		return error;
	if (!emulator_look(fd, bytes)) {
		os_close(&fd);
		return err_set(SECPOOL_E_DEVICE_GONE,
			"the media in %s do not have the %" PRIu64
			" bytes of identity.json and a control page",
			folder, bytes);
	}
	error = end_silence(folder, fd, bytes);
	foreign = read_word(fd, bytes, MEDIA_CANARY_AT) == 0;
	if (!error && foreign)
		error = write_control(fd, bytes); /* made by others: the mark is not theirs */
	mark = foreign ? 0 : mark_read(folder);
	if (!error && mark == 0) /* made just now, or by whom nobody knows */
		error = mark_renew(folder, &mark);
	if (error) {
		os_close(&fd);
		return error;
	}
	*ret_media_fd = fd;
	*ret_mark = mark;
	return SECPOOL_OK;
}

bool emulator_look(int media_fd, uint64_t bytes)
{
	struct stat status;

	return fstat(media_fd, &status) == 0 && status.st_nlink > 0 &&
	       (uint64_t)status.st_size == media_bytes(true, bytes);
}

enum secpool_error emulator_behave(
	int media_fd, uint64_t bytes, enum emumedia_behaviour behaviour, uint64_t ns)
{
	return write_word(media_fd, bytes, EMUMEDIA_WORD_AT, emumedia_word(behaviour, ns));
}

enum secpool_error emulator_probe(int media_fd, uint64_t bytes, uint64_t most_ns)
{
	struct media media = {.control = NULL};
	uint64_t canary = 0;
	enum secpool_error error = media_open(media_fd, bytes, &media);

	if (!error)
		error = media_canary(&media, NULL, most_ns, &canary);
	media_close(&media);
	if (error == SECPOOL_E_TIMEOUT)
		return err_set(error, "it does not answer within %llu ms",
			(unsigned long long)most_ns / CLOCK_NS_PER_MS);
	if (error)
		return err_set(error, "its media are gone");
	if (canary != read_word(media_fd, bytes, MEDIA_CANARY_AT))
		return err_set(SECPOOL_E_INTEGRITY, "it answers, but not with what is on it");
	return SECPOOL_OK;
}

static enum secpool_error copy_range(int from, int to, off_t at, off_t end, void *buffer)
{
	while (at < end) {
		size_t want = end - at < COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
		ssize_t got = pread(from, buffer, want, at);
		enum secpool_error error;

		if (got < 0 && os_interrupted())
			continue;
		if (got < 0)
			return os_error("read the media");
		if (got == 0) /* somebody else truncates them now */
			return SECPOOL_OK;
		if (lseek(to, at, SEEK_SET) < 0)
			return os_error("seek in media.pulled");
		error = os_write_all(to, buffer, (size_t)got);
		if (error)
			return error;
		at += got;
	}
	return SECPOOL_OK;
}

static enum secpool_error copy_data(int from, int to)
{
	enum secpool_error error = SECPOOL_OK;
	off_t size, data, hole = 0;
	void *buffer;

	size = lseek(from, 0, SEEK_END);
	if (size < 0 || ftruncate(to, size) != 0)
		return os_error("set the size of media.pulled");
	buffer = malloc(COPY_BYTES);
	if (!buffer)
		return err_set(SECPOOL_E_NO_MEMORY, "copy the media: out of memory");
	while (!error && (data = lseek(from, hole, SEEK_DATA)) >= 0) {
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0) /* truncated meanwhile */
			break;
		error = copy_range(from, to, data, hole, buffer);
	}
	free(buffer);
	return error;
}

enum secpool_error emulator_save(const char *folder, int media_fd)
{
	enum secpool_error error;
	struct path next, path;
	int to;

	error = path_of(folder, "media.saving", &next);
	if (!error)
		error = path_of(folder, "media.pulled", &path);
	if (error)
		return error;
	unlink(next.text);
	to = open(next.text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return os_error("create %s", next.text);
	error = copy_data(media_fd, to);
	os_close(&to);
	if (!error && rename(next.text, path.text) != 0)
		error = os_error("rename %s", next.text);
	if (error)
		unlink(next.text);
	return error;
}

void emulator_cut(const char *folder, int media_fd)
{
	struct stat ours, named;
	struct path path;

	/* on a regular file that is open for writing truncation to 0 has no way to fail */
	while (ftruncate(media_fd, 0) != 0 && os_interrupted())
		continue;
	if (path_of(folder, "media", &path) == SECPOOL_OK && fstat(media_fd, &ours) == 0 &&
		lstat(path.text, &named) == 0 && ours.st_ino == named.st_ino &&
		ours.st_dev == named.st_dev)
		unlink(path.text);
}

/* Media that somebody truncated, but left in the folder, are in the way of those that come back. */
static enum secpool_error clear_remains(const char *folder, uint64_t bytes)
{
	enum secpool_error error = SECPOOL_OK;
	int fd = -1;

	if (!is_there(folder, "media"))
		return SECPOOL_OK;
	error = open_media(folder, &fd);
	if (error)
		return error;
	if (emulator_look(fd, bytes))
		error = err_set(SECPOOL_E_BUSY, "%s has media already", folder);
	else
		emulator_cut(folder, fd);
	os_close(&fd);
	return error;
}

/* Fits what was pulled to the capacity that the device has now, with a control page of its own. */
static enum secpool_error renew(const char *path, uint64_t bytes)
{
	enum secpool_error error = SECPOOL_OK;
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return os_error("open %s", path);
	if (ftruncate(fd, (off_t)media_bytes(true, bytes)) != 0)
		error = os_error("set the size of %s to %" PRIu64, path, bytes);
	else
		error = write_control(fd, bytes);
	os_close(&fd);
	return error;
}

enum secpool_error emulator_restore(
	const char *folder, uint64_t bytes, int *ret_media_fd, uint64_t *ret_mark)
{
	enum secpool_error error;
	struct path pulled, path;
	uint64_t mark;

	error = path_of(folder, "media.pulled", &pulled);
	if (!error)
		error = path_of(folder, "media", &path);
	if (error)
		return error;
	error = clear_remains(folder, bytes);
	if (error)
		return error;
	/* the mark first: a crash after it leaves a pulled device, never old media that look
	 * unchanged */
	error = mark_renew(folder, &mark);
	if (error)
		return error;
	if (is_there(folder, "media.pulled")) {
		error = renew(pulled.text, bytes);
		if (!error && rename(pulled.text, path.text) != 0)
			error = os_error("rename %s", pulled.text);
	} else {
		error = make_media(folder, bytes);
	}
	if (!error)
		error = emulator_open(folder, bytes, ret_media_fd, ret_mark);
	return error;
}
