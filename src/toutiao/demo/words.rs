//! Names, titles and remarks of people who do not exist.

use super::random::Random;

const SURNAMES: [&str; 20] = [
    "王", "李", "张", "刘", "陈", "杨", "黄", "赵", "吴", "周", "徐", "孙", "马", "朱", "胡", "郭",
    "何", "林", "高", "罗",
];
const GIVEN: [&str; 20] = [
    "伟", "芳", "娜", "敏", "静", "磊", "洋", "勇", "艳", "杰", "涛", "明", "超", "霞", "晓峰",
    "子涵", "雨桐", "浩然", "思远", "文博",
];
const ENGLISH: [&str; 12] = [
    "Alice", "Ben", "Chloe", "Daniel", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack", "Kate",
    "Leo",
];
const PLACES: [&str; 12] = [
    "北京",
    "上海",
    "深圳",
    "杭州",
    "成都",
    "武汉",
    "西安",
    "南京",
    "Berlin",
    "Singapore",
    "Nairobi",
    "Lima",
];
const SUBJECTS: [&str; 14] = [
    "地铁新线",
    "人工智能",
    "新能源汽车",
    "高考",
    "旧城改造",
    "芯片",
    "马拉松",
    "夜市",
    "open source",
    "空间站",
    "房租",
    "春运",
    "图书馆",
    "remote work",
];
const TURNS: [&str; 10] = [
    "带来哪些变化",
    "的十个细节",
    "：现场直击",
    "背后的数字",
    "，专家这样说",
    "一年之后",
    "：普通人的一天",
    "为什么又上热搜",
    "要花多少钱",
    ", explained",
];
const REMARKS: [&str; 14] = [
    "写得真好",
    "学到了",
    "不同意，数据在哪里？",
    "沙发",
    "已收藏",
    "期待下一篇",
    "我就住在附近，确实如此",
    "哈哈哈",
    "Great read",
    "标题党",
    "转给同事看看",
    "这个角度很新",
    "Source, please?",
    "求更新",
];
const INTRODUCTIONS: [&str; 6] =
    ["写字的人", "只说真话", "程序员，偶尔跑步", "Coffee first", "记录城市", "财经观察"];
const CERTIFICATES: [&str; 4] = ["资深媒体人", "科技专栏作者", "城市观察员", "Verified reporter"];

/// A nickname; the number keeps it unique.
pub(super) fn name(random: &mut Random, number: usize) -> String {
    if random.chance(20) {
        return format!("{}_{number}", random.word(&ENGLISH));
    }
    format!("{}{}{number}", random.word(&SURNAMES), random.word(&GIVEN))
}

/// A title.
pub(super) fn title(random: &mut Random) -> String {
    format!("{}{}{}", random.word(&PLACES), random.word(&SUBJECTS), random.word(&TURNS))
}

/// A comment.
pub(super) fn remark(random: &mut Random) -> String {
    random.word(&REMARKS).to_owned()
}

/// A line about oneself.
pub(super) fn introduction(random: &mut Random) -> String {
    random.word(&INTRODUCTIONS).to_owned()
}

/// What an account is certified as.
pub(super) fn certificate(random: &mut Random) -> String {
    random.word(&CERTIFICATES).to_owned()
}
