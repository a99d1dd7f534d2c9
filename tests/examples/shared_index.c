/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A B-tree of a file's words, built by one process in pool memory and searched by others by its own pointers: nothing is written out, read in or translated.
 *
 *   shared_index build FILE    then    shared_index find WORD...    by as many programs as you like, and    shared_index end
 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "secpool.h"

enum { KEYS = 31, WORD_BYTES = 64 };

struct word {
	uint64_t count, first_line;
	char text[];
};

/* Comer, "The Ubiquitous B-Tree": full nodes are split on the way down. */
struct node {
	unsigned count;
	struct word *keys[KEYS];
	struct node *children[KEYS + 1]; /* NULL in a leaf */
};

struct index {
	struct node *root;
	uint64_t words;
};

static char *room, *room_end; /* of the region, in the builder */

static void check(enum secpool_error error, const char *what)
{
	if (error == SECPOOL_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, secpool_error_detail());
	exit(1);
}

static void *take(size_t bytes)
{
	char *at = room;

	room += (bytes + 15) / 16 * 16;
	if (room > room_end) {
		fputs("the region is full\n", stderr);
		exit(1);
	}
	return at;
}

/* Where the word is in a node, or would be. */
static unsigned place_of(const struct node *node, const char *text, int *ret_order)
{
	unsigned at = 0;

	*ret_order = 1;
	while (at < node->count && (*ret_order = strcmp(text, node->keys[at]->text)) > 0)
		at++;
	return at;
}

/* The at-th child, which is full, gives its upper half to a new one. */
static void split(struct node *node, unsigned at)
{
	enum { HALF = KEYS / 2 };
	struct node *left = node->children[at], *right = take(sizeof *right);

	right->count = HALF;
	memcpy(right->keys, left->keys + HALF + 1, HALF * sizeof *left->keys);
	memcpy(right->children, left->children + HALF + 1, (HALF + 1) * sizeof *left->children);
	left->count = HALF;
	memmove(node->keys + at + 1, node->keys + at, (node->count - at) * sizeof *node->keys);
	memmove(node->children + at + 2, node->children + at + 1,
		(node->count - at) * sizeof *node->children);
	node->keys[at] = left->keys[HALF];
	node->children[at + 1] = right;
	node->count++;
}

static void add(struct index *index, const char *text, uint64_t line)
{
	struct node *node = index->root;
	int order;

	if (node->count == KEYS) {
		index->root = take(sizeof *node);
		index->root->children[0] = node;
		split(index->root, 0);
		node = index->root;
	}
	for (;;) {
		unsigned at = place_of(node, text, &order);

		if (order == 0) {
			node->keys[at]->count++;
			return;
		}
		if (!node->children[0]) {
			struct word *word = take(sizeof *word + strlen(text) + 1);

			*word = (struct word){.count = 1, .first_line = line};
			memcpy(word->text, text, strlen(text) + 1);
			memmove(node->keys + at + 1, node->keys + at,
				(node->count++ - at) * sizeof *node->keys);
			node->keys[at] = word;
			index->words++;
			return;
		}
		if (node->children[at]->count == KEYS)
			split(node, at);
		else
			node = node->children[at];
	}
}

static void build(struct secpool *pool, const char *path)
{
	struct secpool_region_options wanted = {
		.size = sizeof wanted, .bytes = 64 << 20, .redundancy = SECPOOL_REDUNDANCY_MIRROR};
	FILE *file = fopen(path, "r");
	struct secpool_region *region;
	struct index *index;
	char text[WORD_BYTES];
	uint64_t line = 1;
	size_t length = 0;

	if (!file) {
		perror(path);
		exit(1);
	}
	check(secpool_region_create(pool, &wanted, &region), "create");
	room = secpool_region_address(region);
	room_end = room + secpool_region_bytes(region);
	index = take(sizeof *index); /* new memory is zeros */
	index->root = take(sizeof *index->root);
	for (int c = getc(file);; c = getc(file)) {
		if (c != EOF && (isalnum(c) || c == '_')) {
			if (length + 1 < sizeof text)
				text[length++] = (char)c;
			continue;
		}
		text[length] = '\0';
		if (length > 0)
			add(index, text, line);
		length = 0;
		line += c == '\n';
		if (c == EOF)
			break;
	}
	fclose(file);
	check(secpool_region_seal(region, "index"), "seal");
	printf("%llu different words\n", (unsigned long long)index->words);
}

static void find(const struct index *index, const char *text)
{
	const struct node *node = index->root;
	int order = 1;

	while (node) {
		unsigned at = place_of(node, text, &order);

		if (order == 0) {
			printf("%s %llu %llu\n", text, (unsigned long long)node->keys[at]->count,
				(unsigned long long)node->keys[at]->first_line);
			return;
		}
		node = node->children[at];
	}
	printf("%s 0 0\n", text);
}

int main(int argc, char **argv)
{
	int reads = argc > 2 && strcmp(argv[1], "find") == 0,
	    ends = argc == 2 && strcmp(argv[1], "end") == 0;
	struct secpool_options options = {.size = sizeof options, .read_only = reads || ends};
	struct secpool_region *region;
	struct secpool *pool;

	if (!reads && !ends && (argc != 3 || strcmp(argv[1], "build") != 0)) {
		fputs("shared_index build FILE | find WORD... | end\n", stderr);
		return 2;
	}
	check(secpool_open("default", &options, &pool), "open");
	if (!reads && !ends) {
		build(pool, argv[2]);
	} else {
		check(secpool_region_attach(
			      pool, "index", ends ? SECPOOL_ATTACH_OWNER : 0, &region),
			"attach");
		for (int i = 2; i < argc; i++)
			find(secpool_region_address(region), argv[i]);
		check(secpool_region_release(region, NULL), "release");
	}
	secpool_close(pool);
	return 0;
}
