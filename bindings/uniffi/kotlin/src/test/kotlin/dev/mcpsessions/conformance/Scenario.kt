// The scenario files: read strictly, with every repetition written out.
package dev.mcpsessions.conformance

import java.io.File
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonObject

/** A step and where it stands, such as `2[i=17].1`; or branches that run at once. */
class Located(val at: String, val step: JsonObject? = null, val branches: List<List<Located>> = emptyList())

class Scenario(written: JsonObject) {
    val name: String
    val requires: List<String>
    val options: JsonObject
    val nodes: List<String>
    val steps: List<Located>

    init {
        onlyFields("a scenario", written, setOf("name", "title", "guarantees", "peer", "requires", "options", "nodes", "steps"))
        name = textOf(written, "name")
        if (textOf(written, "title").isEmpty() || strings(written["guarantees"]).isEmpty()) throw Failed("$name proves nothing")
        requires = strings(written["requires"])
        options = written["options"]?.jsonObject ?: JsonObject(emptyMap())
        nodes = written["nodes"]?.let(::strings) ?: listOf("a")
        steps = writeOut(written.getValue("steps") as JsonArray, "")
        if (steps.isEmpty()) throw Failed("$name has no steps")
    }
}

private const val SCHEMA = "scenario.schema.json"

/** The scenarios of every file, by the file's name. */
fun files(folder: File): Map<String, JsonArray> =
    folder.walk().filter { it.extension == "json" && it.name != SCHEMA }.sorted()
        .associate { it.nameWithoutExtension to Json.parseToJsonElement(it.readText()) as JsonArray }

/** The names of all steps in the schema. */
fun stepsOfSchema(folder: File): Set<String> {
    val schema = Json.parseToJsonElement(File(folder, SCHEMA).readText()).jsonObject
    val kinds = schema.getValue("\$defs").jsonObject.filterKeys { it == "step" || it == "sessionStep" }.values
    val shapes = kinds.flatMap { it.jsonObject.getValue("oneOf") as JsonArray }
    return shapes.flatMap { shape ->
        val named = shape.jsonObject.getValue("properties").jsonObject.getValue("do").jsonObject
        named["enum"]?.let(::strings) ?: listOf(textOf(named, "const"))
    }.toSet()
}

private fun writeOut(steps: JsonArray, prefix: String): List<Located> =
    steps.flatMapIndexed { n, step -> writeOutOne(step.jsonObject, "$prefix${n + 1}") }

private fun writeOutOne(step: JsonObject, at: String): List<Located> = when (textOf(step, "do")) {
    "repeat" -> {
        onlyFields("repeat", step, setOf("do", "from", "to", "steps"))
        (numberOf(step, "from")..numberOf(step, "to")).flatMap { i ->
            writeOut(substituted(step.getValue("steps"), i) as JsonArray, "$at[i=$i].")
        }
    }
    "parallel" -> {
        onlyFields("parallel", step, setOf("do", "branches"))
        val branches = step.getValue("branches") as JsonArray
        listOf(Located(at, branches = branches.mapIndexed { n, one -> writeOut(one as JsonArray, "$at.${n + 1}.") }))
    }
    else -> listOf(Located(at, step))
}

/** Puts the number of a turn in place of `{i}`; a text that is nothing else becomes a number. */
private fun substituted(value: JsonElement, i: Int): JsonElement = when (value) {
    is JsonPrimitive -> when {
        !value.isString -> value
        value.content == "{i}" -> JsonPrimitive(i)
        else -> JsonPrimitive(value.content.replace("{i}", "$i"))
    }
    is JsonArray -> JsonArray(value.map { substituted(it, i) })
    is JsonObject -> JsonObject(value.mapValues { (_, field) -> substituted(field, i) })
}

fun strings(written: JsonElement?): List<String> = (written as JsonArray?).orEmpty().map { (it as JsonPrimitive).content }

fun textOf(written: JsonObject, name: String): String = text(written.getValue(name))

fun numberOf(written: JsonObject, name: String): Int = (written.getValue(name) as JsonPrimitive).int

/** Whether it is a text, maybe a written-out one. */
fun isText(written: JsonElement): Boolean =
    written is JsonPrimitive && written.isString || written is JsonObject && "repeat" in written

/** `"text"` or `{"repeat": "x", "times": 3}`. */
fun text(written: JsonElement): String = when (written) {
    is JsonPrimitive -> written.content
    is JsonObject -> textOf(written, "repeat").repeat(numberOf(written, "times"))
    else -> throw Failed("${shown(written)} is no text")
}

/** A text, `{"sequence": "m", "from": 1, "to": 9}`, or a list of both. */
fun texts(written: JsonElement): List<String> = when {
    written is JsonArray -> written.flatMap(::texts)
    written is JsonObject && "sequence" in written ->
        (numberOf(written, "from")..numberOf(written, "to")).map { "${textOf(written, "sequence")}$it" }
    else -> listOf(text(written))
}

/** `{"each": {…}, "from": 1, "to": 9}` stands for notifications numbered in `params.n`. */
fun notifications(written: JsonElement): List<JsonElement> {
    if (written !is JsonObject || "each" !in written) return listOf(written)
    return (numberOf(written, "from")..numberOf(written, "to")).map { n ->
        withParam(written.getValue("each").jsonObject, "n", JsonPrimitive(n))
    }
}

/** A notification with one more parameter. */
fun withParam(notification: JsonObject, name: String, value: JsonElement): JsonObject {
    val params = notification["params"]?.jsonObject.orEmpty()
    return JsonObject(notification + ("params" to JsonObject(params + (name to value))))
}
