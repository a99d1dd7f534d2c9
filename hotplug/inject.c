/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/inject.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/os.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

enum { PAGE_BYTES = 4096 };

/* most: of the number behind the colon; 0: there is none. needed: it must be there. */
struct word {
	const char *text;
	enum inject_kind kind;
	uint64_t most;
	bool needed;
};

static const struct word words[] = {
	{"normal", INJECT_NORMAL, 0, false},
	{"corrupt", INJECT_CORRUPT, INJECT_PLACES_MOST, false},
	{"slow", INJECT_SLOW, INJECT_SLOW_MS_MOST, true},
	{"stuck", INJECT_STUCK, 0, false},
	{"flap", INJECT_FLAP, INJECT_FLAPS_MOST, false},
	{"short", INJECT_SHORT, 0, false},
	{"poison", INJECT_POISON, 0, false},
};

static enum secpool_error read_number(
	const struct word *word, const char *text, uint64_t *ret_number)
{
	char *end;
	unsigned long long number = strtoull(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || number == 0 || number > word->most)
		return err_set(SECPOOL_E_INVALID, "inject %s: expected a number from 1 to %llu",
			word->text, (unsigned long long)word->most);
	*ret_number = number;
	return SECPOOL_OK;
}

enum secpool_error inject_parse(const char *text, struct inject *ret_inject)
{
	size_t length = strcspn(text, ":");

	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		const struct word *word = &words[i];
		struct inject inject = {.kind = word->kind, .number = word->most ? 1 : 0};
		enum secpool_error error = SECPOOL_OK;

		if (strlen(word->text) != length || strncmp(word->text, text, length) != 0)
			continue;
		if (text[length] && word->most == 0)
			return err_set(SECPOOL_E_INVALID, "inject %s takes no number", word->text);
		if (text[length] || word->needed)
			error = read_number(
				word, text[length] ? text + length + 1 : "", &inject.number);
		if (!error)
			*ret_inject = inject;
		return error;
	}
	return err_set(SECPOOL_E_INVALID,
		"inject '%.40s': expected corrupt[:N], slow:MS, stuck, flap[:N], short, poison or "
		"normal",
		text);
}

enum secpool_error inject_corrupt(int media_fd, uint64_t bytes, uint64_t places)
{
	for (uint64_t i = 0; i < places; i++) {
		uint64_t at;
		uint8_t byte;

		os_random(&at, sizeof at);
		at %= bytes;
		if (pread(media_fd, &byte, 1, (off_t)at) != 1)
			return os_error("read the media");
		byte ^= 0xff;
		if (pwrite(media_fd, &byte, 1, (off_t)at) != 1)
			return os_error("write the media");
	}
	return SECPOOL_OK;
}

enum secpool_error inject_short(int media_fd, uint64_t bytes)
{
	if (ftruncate(media_fd, (off_t)(bytes / 2)) != 0)
		return os_error("cut the media");
	return SECPOOL_OK;
}

enum secpool_error inject_poison(int media_fd, uint64_t bytes)
{
	enum secpool_error error = SECPOOL_OK;
	uint64_t page;
	void *map;

	os_random(&page, sizeof page);
	page %= bytes / PAGE_BYTES;
	map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, media_fd,
		(off_t)(page * PAGE_BYTES));
	if (map == MAP_FAILED)
		return os_error("map the media");
	if (madvise(map, PAGE_BYTES, MADV_HWPOISON) != 0) {
		error = os_error("madvise");
		error = err_set(SECPOOL_E_UNSUPPORTED,
			"poison needs a kernel with CONFIG_MEMORY_FAILURE, and CAP_SYS_ADMIN "
			"(%.100s)",
			err_detail());
	}
	munmap(map, PAGE_BYTES);
	return error;
}
