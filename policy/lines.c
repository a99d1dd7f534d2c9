/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/lines.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* No mapping of a policy has more; the check for keys given twice is quadratic. */
enum { KEYS_MOST = 256 };

struct lines {
	yaml_document_t document;
};

static unsigned line_of_node(const yaml_node_t *node)
{
	return (unsigned)node->start_mark.line + 1;
}

static bool scalar_is(const yaml_node_t *node, const char *text, size_t length)
{
	return node->type == YAML_SCALAR_NODE && node->data.scalar.length == length &&
	       memcmp(node->data.scalar.value, text, length) == 0;
}

/* The pair of a mapping whose key is text; NULL when there is none. */
static const yaml_node_pair_t *find_pair(
	yaml_document_t *document, const yaml_node_t *mapping, const char *text, size_t length)
{
	if (mapping->type != YAML_MAPPING_NODE)
		return NULL;
	for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
		pair < mapping->data.mapping.pairs.top; pair++)
		if (scalar_is(yaml_document_get_node(document, pair->key), text, length))
			return pair;
	return NULL;
}

static const yaml_node_t *find_child(
	yaml_document_t *document, const yaml_node_t *node, const char **path)
{
	const char *at = *path;

	if (*at == '[') {
		size_t index = strtoul(at + 1, NULL, 10);
		const yaml_node_item_t *items = node->data.sequence.items.start;

		*path = at + strcspn(at, "]");
		*path += **path == ']';
		if (node->type != YAML_SEQUENCE_NODE ||
			index >= (size_t)(node->data.sequence.items.top - items))
			return NULL;
		return yaml_document_get_node(document, items[index]);
	}
	at += *at == '.';
	*path = at + strcspn(at, ".[");
	const yaml_node_pair_t *pair = find_pair(document, node, at, (size_t)(*path - at));
	return pair ? yaml_document_get_node(document, pair->value) : NULL;
}

/* The node at the path, or the nearest above it. */
static const yaml_node_t *find_node(const struct lines *lines, const char *path, bool *ret_exact)
{
	yaml_document_t *document = (yaml_document_t *)&lines->document;
	const yaml_node_t *node = yaml_document_get_root_node(document);

	*ret_exact = node != NULL;
	while (node && *path) {
		const yaml_node_t *child = find_child(document, node, &path);

		if (!child) {
			*ret_exact = false;
			break;
		}
		node = child;
	}
	return node;
}

unsigned lines_of(const struct lines *lines, const char *path)
{
	bool exact;
	const yaml_node_t *node = find_node(lines, path, &exact);

	return node ? line_of_node(node) : 1;
}

unsigned lines_of_key(const struct lines *lines, const char *path, const char *key)
{
	yaml_document_t *document = (yaml_document_t *)&lines->document;
	bool exact;
	const yaml_node_t *node = find_node(lines, path, &exact);
	const yaml_node_pair_t *pair =
		node && exact ? find_pair(document, node, key, strlen(key)) : NULL;

	if (pair)
		node = yaml_document_get_node(document, pair->key);
	return node ? line_of_node(node) : 1;
}

static enum secpool_error check_keys(
	yaml_document_t *document, const yaml_node_t *mapping, const char *name)
{
	if (mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start > KEYS_MOST)
		return err_set(SECPOOL_E_POLICY, "%s:%u: expected at most %d keys here", name,
			line_of_node(mapping), KEYS_MOST);
	for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
		pair < mapping->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = yaml_document_get_node(document, pair->key);

		if (key->type != YAML_SCALAR_NODE)
			return err_set(SECPOOL_E_POLICY, "%s:%u: expected a name before the colon",
				name, line_of_node(key));
		if (find_pair(document, mapping, (const char *)key->data.scalar.value,
			    key->data.scalar.length) != pair)
			return err_set(SECPOOL_E_POLICY, "%s:%u: '%.40s' is given twice", name,
				line_of_node(key), (const char *)key->data.scalar.value);
	}
	return SECPOOL_OK;
}

/* Nothing may follow the first document: libcyaml would ignore it, a reader believe it. */
static enum secpool_error check_end(yaml_parser_t *parser, const char *name)
{
	yaml_document_t next;
	enum secpool_error error = SECPOOL_OK;
	const yaml_node_t *root;

	if (!yaml_parser_load(parser, &next))
		return err_set(SECPOOL_E_POLICY, "%s:%zu: %s", name, parser->problem_mark.line + 1,
			parser->problem ? parser->problem : "can't be read");
	root = yaml_document_get_root_node(&next);
	if (root)
		error = err_set(SECPOOL_E_POLICY,
			"%s:%u: expected the end of the file: one policy, one document", name,
			line_of_node(root));
	yaml_document_delete(&next);
	return error;
}

static enum secpool_error check_document(
	yaml_parser_t *parser, yaml_document_t *document, const char *name)
{
	yaml_node_t *root = yaml_document_get_root_node(document);

	if (!root)
		return err_set(SECPOOL_E_POLICY, "%s:1: is empty: expected 'version: 1'", name);
	if (root->type != YAML_MAPPING_NODE)
		return err_set(SECPOOL_E_POLICY, "%s:%u: expected 'version: 1' and other keys",
			name, line_of_node(root));
	for (yaml_node_t *node = document->nodes.start; node < document->nodes.top; node++) {
		enum secpool_error error = SECPOOL_OK;

		if (node->type == YAML_MAPPING_NODE)
			error = check_keys(document, node, name);
		if (error)
			return error;
	}
	return check_end(parser, name);
}

enum secpool_error lines_new(
	const char *text, size_t bytes, const char *name, struct lines **ret_lines)
{
	struct lines *lines = calloc(1, sizeof *lines);
	enum secpool_error error;
	yaml_parser_t parser;

	if (!lines || !yaml_parser_initialize(&parser)) {
		free(lines);
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory to read it", name);
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
	if (!yaml_parser_load(&parser, &lines->document)) {
		error = err_set(SECPOOL_E_POLICY, "%s:%zu: %s", name, parser.problem_mark.line + 1,
			parser.problem ? parser.problem : "can't be read");
		free(lines);
	} else {
		error = check_document(&parser, &lines->document, name);
		if (error)
			lines_free(lines);
		else
			*ret_lines = lines;
	}
	yaml_parser_delete(&parser);
	return error;
}

void lines_free(struct lines *lines)
{
	if (lines)
		yaml_document_delete(&lines->document);
	free(lines);
}
